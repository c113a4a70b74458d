-- wrk -s cycle.lua URL -- FORMAT COUNT [SEED]
-- Asks for COUNT paths made with FORMAT: in order, or with SEED shuffled, the same for every run.
local requests, at = {}, 0

function init(args)
   local format, count, seed = args[1], tonumber(args[2]), tonumber(args[3])
   local numbers = {}
   for i = 1, count do numbers[i] = i - 1 end
   if seed then
      math.randomseed(seed)
      for i = count, 2, -1 do
         local j = math.random(i)
         numbers[i], numbers[j] = numbers[j], numbers[i]
      end
   end
   for i = 1, count do
      requests[i] = wrk.format("GET", string.format(format, numbers[i] % 100, numbers[i]))
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end
