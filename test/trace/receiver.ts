/** A collector at the far end of the wire: takes OTLP over HTTP as protobuf, reads it with code of its own, and keeps it. */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { until } from '../process/lockstep.ts';

export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  /** Empty for a root. */
  parentId: string;
  name: string;
  /** 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  kind: number;
  /** Nanoseconds since 1970. */
  start: bigint;
  end: bigint;
  attributes: Record<string, unknown>;
  links: { traceId: string; spanId: string }[];
  /** 2 is an error. */
  status: { code: number; message: string };
  /** Of its process. */
  resource: Record<string, unknown>;
}

export interface Receiver {
  url: string;
  spans: ReceivedSpan[];
  /** Requests that came, with the headers that they had. */
  requests: { path: string; headers: Record<string, unknown> }[];
  trace(id: string): ReceivedSpan[];
  /** Waits until the trace has spans of all these names. */
  whole(id: string, ...names: string[]): Promise<ReceivedSpan[]>;
  /** What becomes of requests from now on. */
  behave(how: 'take' | 'refuse' | 'hang'): void;
  close(): Promise<void>;
}

export async function startReceiver(): Promise<Receiver> {
  const spans: ReceivedSpan[] = [];
  const requests: Receiver['requests'] = [];
  const hanging: ServerResponse[] = [];
  let how: 'take' | 'refuse' | 'hang' = 'take';
  const server = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      requests.push({ path: req.url ?? '', headers: req.headers });
      if (how === 'hang') {
        hanging.push(res);
        return;
      }
      if (how === 'refuse') {
        res.writeHead(400).end();
        return;
      }
      const body = Buffer.concat(chunks);
      spans.push(...readRequest(req.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body));
      res.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const trace = (id: string) => spans.filter((span) => span.traceId === id);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    requests,
    trace,
    whole: (id, ...names) =>
      until(async () => {
        const found = trace(id);
        return names.every((name) => found.some((span) => span.name === name)) ? found : undefined;
      }),
    behave(next) {
      how = next;
    },
    async close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

type Field = { number: number; value: bigint | Buffer };

/** Protocol Buffers' wire format: numbers of 64 bits, and bytes, of which messages and texts are made. */
function fields(message: Buffer): Field[] {
  const found: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++] ?? 0;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const taken = (bytes: number): Buffer => {
    at += bytes;
    return message.subarray(at - bytes, at);
  };
  while (at < message.length) {
    const tag = Number(varint());
    const number = tag >> 3;
    const type = tag & 7;
    if (type === 0) found.push({ number, value: varint() });
    else if (type === 1) found.push({ number, value: taken(8).readBigUInt64LE() });
    else if (type === 5) found.push({ number, value: BigInt(taken(4).readUInt32LE()) });
    else if (type === 2) found.push({ number, value: taken(Number(varint())) });
    else throw new Error(`protobuf has no wire type ${type} here`);
  }
  return found;
}

const all = (from: Field[], number: number) =>
  from.flatMap((field) => (field.number === number && Buffer.isBuffer(field.value) ? [field.value] : []));
const first = (from: Field[], number: number) => all(from, number)[0] ?? Buffer.alloc(0);
const integer = (from: Field[], number: number) => {
  const found = from.find((field) => field.number === number)?.value;
  return typeof found === 'bigint' ? found : 0n;
};
const hex = (from: Field[], number: number) => first(from, number).toString('hex');

function attributes(of: Buffer[]): Record<string, unknown> {
  return Object.fromEntries(
    of.map((pair) => {
      const parts = fields(pair);
      return [first(parts, 1).toString(), anyValue(first(parts, 2))];
    }),
  );
}

function anyValue(message: Buffer): unknown {
  const [field] = fields(message);
  if (!field) return undefined;
  if (field.number === 4 && typeof field.value === 'bigint') {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(field.value);
    return bytes.readDoubleLE();
  }
  if (typeof field.value === 'bigint') return field.number === 2 ? field.value === 1n : Number(field.value);
  if (field.number === 5) return all(fields(field.value), 1).map(anyValue);
  return field.value.toString();
}

function readRequest(body: Buffer): ReceivedSpan[] {
  return all(fields(body), 1).flatMap((resourceSpans) => {
    const of = fields(resourceSpans);
    const resource = attributes(all(fields(first(of, 1)), 1));
    return all(of, 2)
      .flatMap((scopeSpans) => all(fields(scopeSpans), 2))
      .map((message): ReceivedSpan => {
        const span = fields(message);
        const status = fields(first(span, 15));
        return {
          traceId: hex(span, 1),
          spanId: hex(span, 2),
          parentId: hex(span, 4),
          name: first(span, 5).toString(),
          kind: Number(integer(span, 6)),
          start: integer(span, 7),
          end: integer(span, 8),
          attributes: attributes(all(span, 9)),
          links: all(span, 13).map((link) => ({
            traceId: hex(fields(link), 1),
            spanId: hex(fields(link), 2),
          })),
          status: { code: Number(integer(status, 3)), message: first(status, 2).toString() },
          resource,
        };
      });
  });
}
