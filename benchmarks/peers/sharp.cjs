// sharp behind the smallest server: /?src=/PATH&w=320&q=80&fmt=jpeg, run where it is installed:
//   node sharp.cjs ROOT PORT CACHE
const http = require('http');
const path = require('path');
const { createRequire } = require('module');
const sharp = createRequire(process.cwd() + '/')('sharp');

const [root, port, cache] = process.argv.slice(2);
sharp.cache(cache === 'on');
const types = { '.jpg': 'jpeg', '.png': 'png', '.webp': 'webp' };

http.createServer(async (request, response) => {
  try {
    const asked = new URL(request.url, 'http://localhost').searchParams;
    const src = path.join(root, path.normalize('/' + asked.get('src')));
    const fmt = asked.get('fmt') || types[path.extname(src)];
    const quality = Number(asked.get('q') || 80);
    let picture = sharp(src).autoOrient();
    picture = picture.resize({ width: Number(asked.get('w')), withoutEnlargement: true });
    if (fmt === 'jpeg') picture = picture.jpeg({ quality });
    if (fmt === 'png') picture = picture.png();
    if (fmt === 'webp') picture = picture.webp({ quality });
    // libaom's speed is 9 - effort: 8, as ours; and colours as coarse as ours.
    if (fmt === 'avif') picture = picture.avif({ quality, effort: 1, chromaSubsampling: '4:2:0' });
    const body = await picture.toBuffer();
    response.writeHead(200, { 'Content-Type': 'image/' + fmt, 'Content-Length': body.length });
    response.end(body);
  } catch (error) {
    response.writeHead(500);
    response.end(String(error));
  }
}).listen(Number(port), '127.0.0.1');
