// Documents whose contents are known, ingested one after the other while others are deleted, edited and fail.
import { setTimeout as sleep } from 'node:timers/promises';
import type { LightRagApi } from './api.ts';
import type { Truth } from './judge.ts';
import { paragraphs } from './scenarios/texts.ts';

/** Every so many-th document fails at first; every so many-th is deleted; a name by hand is edited with each. */
const FAILS_EACH = 7;
const DELETED_EACH = 5;
const DELETED_AFTER = 3;
const RETRY_EACH = 4;
export const FAIL_KEY = 'ingest';

/** Returns the n-th document: it names what no other does, and what all do. */
export function documentOf(n: number): Truth {
  const [own, other] = [`Captain Own${n}x`, `Doctor Other${n}x`];
  const fails = n % FAILS_EACH === FAILS_EACH - 1 ? `@@FAILWHILE:${FAIL_KEY}@@ ` : '';
  const text = `${fails}${own} met ${other} in the Harbour Town.\n\n${paragraphs(1 + (n % 3), `Volume${n % 4}`)}`;
  return { text, names: [own, other], pairs: [[own, other]] };
}

export function fileOf(n: number): string {
  return `document-${n}.txt`;
}

/** Returns whether a query finds what only this document says. */
export async function finds(api: LightRagApi, { names, pairs }: Truth): Promise<boolean> {
  const [name = ''] = names;
  const { body } = await api.query(`Where was ${name}?`, 'local', { only_need_context: true });
  const text = JSON.stringify(body);
  return [name, ...pairs.flat()].every((one) => text.includes(one));
}

/** Ingests documents until it is stopped. */
export class Ingest {
  /** All documents that were ever inserted, by file name. */
  readonly truth = new Map<string, Truth>();
  /** Inserts in a row that the server refused. */
  refusals = 0;
  readonly #api: LightRagApi;
  readonly #everyMs: number;
  readonly #done: Promise<void>;
  #isStopped = false;

  constructor(api: LightRagApi, everyMs: number) {
    this.#api = api;
    this.#everyMs = everyMs;
    this.#done = this.#run();
    // The end is waited for by `stop`.
    this.#done.catch(() => {});
  }

  async #run(): Promise<void> {
    for (let n = 0; !this.#isStopped; n++) {
      const began = performance.now();
      const document = documentOf(n);
      this.truth.set(fileOf(n), document);
      const { status } = await this.#api.insert(document.text, fileOf(n));
      this.refusals = status === 200 ? 0 : this.refusals + 1;
      await this.#edit(n);
      await sleep(Math.max(0, this.#everyMs - (performance.now() - began)));
    }
  }

  /** Makes one of the changes that an owner makes beside ingests. */
  async #edit(n: number): Promise<void> {
    if (n % DELETED_EACH === DELETED_EACH - 1) {
      const file = fileOf(n - DELETED_AFTER);
      const found = (await this.#api.documents()).find(({ file_path }) => file_path === file);
      if (found !== undefined) await this.#api.remove([found.id]);
    } else if (n % RETRY_EACH === 0) {
      // Beside an insert, 1.5.7 may wait for itself for good.
      if ((await this.#api.pipeline()).busy.length === 0) await this.#api.reprocess();
    } else if (n % 2 === 0) {
      await this.#api.createEntity(`Hand Made ${n}`, { description: 'by hand', entity_type: 'artifact' });
    } else {
      await this.#api.query(`Who met Doctor Other${n - 1}x?`);
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#done;
  }
}
