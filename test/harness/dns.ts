/** A DNS server at the far end of the wire: answers TXT questions over UDP from what a test has put into its zone. */
import { createSocket } from 'node:dgram';

export async function startDns() {
  const zone = new Map<string, string[]>();
  /** While set, questions get no answer that decides anything (SERVFAIL). */
  let broken = false;
  const socket = createSocket('udp4');
  socket.on('message', (query, from) => {
    const { name, end } = readName(query);
    const texts = zone.get(name.toLowerCase());
    const header = Buffer.alloc(12);
    query.copy(header, 0, 0, 2);
    const status = broken ? 2 : texts === undefined ? 3 : 0;
    header.writeUInt16BE(0x8400 | (query.readUInt16BE(2) & 0x0100) | status, 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(broken ? 0 : (texts?.length ?? 0), 6);
    const question = query.subarray(12, end + 4);
    const answers = (broken ? [] : (texts ?? [])).map(txt);
    socket.send(Buffer.concat([header, question, ...answers]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return {
    address: `127.0.0.1:${socket.address().port}`,
    zone,
    break(on: boolean): void {
      broken = on;
    },
    stop: () => new Promise<void>((resolve) => socket.close(() => resolve())),
  };
}

function readName(query: Buffer): { name: string; end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString('ascii', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.'), end: at + 1 };
}

/** A resource record for the question's name (a pointer to it): TXT, IN, in parts of 255 bytes. */
function txt(value: string): Buffer {
  const parts: Buffer[] = [];
  const bytes = Buffer.from(value);
  for (let at = 0; at < bytes.length; at += 255) {
    const part = bytes.subarray(at, at + 255);
    parts.push(Buffer.from([part.length]), part);
  }
  const data = Buffer.concat(parts);
  const head = Buffer.from([0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0]);
  head.writeUInt16BE(data.length, 10);
  return Buffer.concat([head, data]);
}
