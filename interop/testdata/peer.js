// A peer of Node's tls: echoes as a server, checks the echo as a client, and prints what it knows of each session.
const tls = require('tls'), fs = require('fs');
const [role, port, version, ca, cert, key, mutual, size, sessions] = process.argv.slice(2);
const options = {
  ca: fs.readFileSync(ca), minVersion: 'TLSv' + version, maxVersion: 'TLSv' + version, ALPNProtocols: ['echo'],
};
if (role === 'server' || mutual === 'true') Object.assign(options, { cert: fs.readFileSync(cert), key: fs.readFileSync(key) });

function report(s, echoed, end) {
  // A client of a resumed session has lost the server's certificate.
  const peer = s.getPeerCertificate(), lost = role === 'client' && s.isSessionReused();
  const name = lost ? '' : ` peer=${(peer && peer.subject && peer.subject.CN) || ''}`;
  console.log(`session protocol=${s.getProtocol()} cipher=${s.getCipher().standardName}${name} ` +
    `resumed=${s.isSessionReused()} alpn=${s.alpnProtocol} echoed=${echoed} end=${end}`);
}

if (role === 'client') {
  const pattern = Buffer.alloc(+size);
  for (let i = 0; i < +size; i++) pattern[i] = (i * 31 + 7) & 255;
  const connect = (session, times) => {
    const s = tls.connect({ ...options, host: '127.0.0.1', port: +port, servername: 'server.example', session });
    let got = [], length = 0, last;
    s.on('secureConnect', () => s.write(pattern));
    s.on('session', (x) => { last = x; });
    s.on('data', (d) => {
      got.push(d);
      length += d.length;
      if (length < +size) return;
      if (!Buffer.concat(got).equals(pattern)) throw new Error('the echo is not what was sent');
      report(s, length, 'open');
      s.end();
    });
    s.on('close', () => { if (times > 1) connect(last, times - 1); });
  };
  connect(undefined, +sessions);
} else {
  const server = tls.createServer({ ...options, requestCert: mutual === 'true', rejectUnauthorized: mutual === 'true' });
  let ended = 0;
  server.on('secureConnection', (s) => {
    let echoed = 0;
    console.log('sni=' + s.servername);
    s.on('data', (d) => { echoed += d.length; s.write(d); });
    s.on('end', () => { report(s, echoed, 'end'); s.end(); }); // of either kind: it does not tell
    s.on('error', (e) => console.log('error ' + e.code));
    s.on('close', () => { if (++ended === +sessions) server.close(); });
  });
  server.listen(+port, '127.0.0.1', () => console.log('ready'));
}
