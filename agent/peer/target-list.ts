import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { isGraphId } from '../../core/graph-id.ts';
import { makeDir, replaceFile } from '../../host/disk.ts';
import type { TargetSettings } from '../config/settings.ts';

/** Name of the file of added targets in the state folder. */
export const TARGETS_FILE = 'targets.json';
/** Most bytes of the file, and most targets. */
const FILE_BYTES_MAX = 1 << 20;
const TARGETS_MAX = 1000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The targets of an agent: those of its settings, and those that were added, which a file in STATE holds. */
export class TargetList {
  readonly #configured: readonly TargetSettings[];
  readonly #file: string;
  #added: readonly TargetSettings[] = [];

  /** `file` is where added targets are stored. */
  constructor(configured: readonly TargetSettings[], file: string) {
    this.#configured = configured;
    this.#file = file;
  }

  /** Reads the added targets. DAMAGED if the file holds anything else. */
  async load(): Promise<void> {
    let text: string;
    try {
      text = await readFile(this.#file, 'utf8');
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return;
      throw ioError('read', this.#file, error);
    }
    this.#added = parseTargets(text, this.#file);
  }

  /** Returns all targets. Those of the settings win over added ones of the same name. */
  list(): readonly TargetSettings[] {
    return [...this.#configured, ...this.#added.filter(({ name }) => !this.isConfigured(name))];
  }

  /** Reports whether the settings name a target. */
  isConfigured(name: string): boolean {
    return this.#configured.some((target) => target.name === name);
  }

  /** Adds a target, or replaces the added one of its name. INVALID_ARGUMENT for a wrong name or graph id. */
  async add(target: TargetSettings): Promise<void> {
    checkTarget(target);
    if (this.isConfigured(target.name)) throw configured('add', target.name);
    const others = this.#added.filter(({ name }) => name !== target.name);
    if (others.length >= TARGETS_MAX)
      throw new LightkeeperError(
        'REFUSED',
        `Cannot add target "${target.name}": there are ${TARGETS_MAX} already`,
      );
    await this.#store([...others, target]);
  }

  /** Removes an added target. NOT_FOUND if there is none of that name. */
  async remove(name: string): Promise<void> {
    if (this.isConfigured(name)) throw configured('remove', name);
    const others = this.#added.filter((target) => target.name !== name);
    if (others.length === this.#added.length) {
      throw new LightkeeperError('NOT_FOUND', `Cannot remove target "${name}": there is none of that name`, {
        hint: 'run lightkeeper targets list',
      });
    }
    await this.#store(others);
  }

  async #store(targets: readonly TargetSettings[]): Promise<void> {
    const sorted = targets.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    await makeDir('targets:folder', dirname(this.#file));
    await replaceFile(
      'targets:write',
      this.#file,
      Buffer.from(`${JSON.stringify({ targets: sorted }, null, 2)}\n`),
    );
    this.#added = sorted;
  }
}

function configured(doing: string, name: string): LightkeeperError {
  return new LightkeeperError('REFUSED', `Cannot ${doing} target "${name}": the settings name it`, {
    hint: 'change targets in the settings file',
  });
}

function checkTarget({ name, certificate, graphs, bytesPerSecond }: TargetSettings): void {
  const wrong = (state: string) =>
    new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${name}" as a target: ${state}`, {
      hint: 'names have letters, digits, ".", "_" and "-", at most 128',
    });
  if (!NAME.test(name)) throw wrong('it is not a name');
  if (certificate === '' || certificate.length > 256) throw wrong('its certificate has no such name');
  if (graphs.length > TARGETS_MAX || !graphs.every(isGraphId))
    throw wrong('it names something that is no graph id');
  if (bytesPerSecond !== undefined && !(bytesPerSecond >= 1)) throw wrong('its bandwidth is no rate');
}

function parseTargets(text: string, file: string): TargetSettings[] {
  const damaged = (cause?: unknown) =>
    new LightkeeperError('DAMAGED', `Cannot read the targets in "${file}": they are not what was written`, {
      hint: 'correct or remove the file, and add the targets again',
      cause,
    });
  if (text.length > FILE_BYTES_MAX) throw damaged();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw damaged(error);
  }
  const { targets } = (value ?? {}) as { targets?: unknown };
  if (!Array.isArray(targets) || targets.length > TARGETS_MAX) throw damaged();
  return targets.map((one: unknown) => {
    if (!isTarget(one)) throw damaged();
    const { name, certificate, graphs, bytesPerSecond, standby } = one;
    return { name, certificate, graphs, bytesPerSecond, standby };
  });
}

function isTarget(value: unknown): value is TargetSettings {
  const { name, certificate, graphs, bytesPerSecond, standby } = (value ?? {}) as Record<string, unknown>;
  const isText = (one: unknown) => typeof one === 'string';
  return (
    isText(name) &&
    isText(certificate) &&
    Array.isArray(graphs) &&
    graphs.every(isText) &&
    (bytesPerSecond === undefined || typeof bytesPerSecond === 'number') &&
    typeof standby === 'boolean'
  );
}
