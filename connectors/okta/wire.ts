/**
 * One request to Okta on the wire. It stands in for the SDK's own sender, node-fetch 2, which never notices that a
 * connection was closed in the middle of a body and waits for the rest until a time limit ends it. No redirect is
 * followed; a proxy of the environment (`https_proxy`, `http_proxy`, `no_proxy`) is used as by the SDK.
 */
import { EnvHttpProxyAgent, fetch } from 'undici';

/** Of the SDK's request, what is sent. */
export interface Request {
  url: string;
  method?: string;
  headers?: Record<string, string>;
  body?: unknown;
}

/** Read to its end. */
export interface Raw {
  status: number;
  headers: Headers;
  text: string;
}

export interface Wire {
  /** @throws TooLarge; the signal's reason; what the network threw, an end before the answer was whole included */
  send(request: Request, signal: AbortSignal): Promise<Raw>;
  close(): Promise<void>;
}

/** The answer is larger than is taken. */
export class TooLarge extends Error {}

/** Connections to one org: `get` asks for a few users at a time. */
const CONNECTIONS = 8;
const CONNECT_MS = 15_000;

/** @param limits the longest body that is taken, unpacked */
export function openWire({ maxBytes }: { maxBytes: number }): Wire {
  const dispatcher = new EnvHttpProxyAgent({
    connections: CONNECTIONS,
    connect: { timeout: CONNECT_MS },
    // The time limit of a request is its signal.
    ...{ headersTimeout: 0, bodyTimeout: 0 },
  });
  return {
    async send({ url, method = 'GET', headers = {}, body }, signal) {
      const response = await fetch(url, {
        ...{ method: method.toUpperCase(), headers, dispatcher, signal, redirect: 'manual' },
        ...(typeof body === 'string' && { body }),
      });
      const decoder = new TextDecoder();
      let text = '';
      let bytes = 0;
      for await (const chunk of response.body ?? []) {
        bytes += chunk.byteLength;
        if (bytes > maxBytes) throw new TooLarge(`more than ${maxBytes} bytes`);
        text += decoder.decode(chunk, { stream: true });
      }
      return {
        status: response.status,
        headers: response.headers as unknown as Headers,
        text: text + decoder.decode(),
      };
    },
    close: () => dispatcher.destroy(),
  };
}
