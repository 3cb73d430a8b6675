#!/usr/bin/env node
// In the checkout the sources run as they are. The installed package has them as JavaScript: Node strips no types there.
import { existsSync } from 'node:fs';

const source = new URL('../src/main.ts', import.meta.url);
await import(existsSync(source) ? source.href : '../dist/src/main.js');
