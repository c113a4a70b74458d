-- wrk -s paced.lua URL -- MILLISECONDS
-- Every connection waits about MILLISECONDS before each request: many connections make an
-- arrival rate that hardly depends on how fast the answers come.
local mean

function init(args)
   mean = tonumber(args[1])
   math.randomseed(1)
end

function delay()
   return math.random(math.floor(mean * 0.5), math.floor(mean * 1.5))
end
