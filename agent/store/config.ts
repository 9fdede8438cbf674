import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create, fromJsonString, toJsonString } from '@bufbuild/protobuf';
import { ioError, LightkeeperError, systemCode } from '../../core/errors.ts';
import { type StoreConfig, StoreConfigSchema } from '../../gen/lightkeeper/store/v1/pack_pb.ts';
import { replaceFile } from '../../host/disk.ts';
import { formatError, STORE_FORMAT } from '../pack/format.ts';

const STORE_ID_BYTES = 16;
const COPIES = ['config', 'config.copy'] as const;
const TOO_NEW_HINT = 'use the version of Lightkeeper that wrote this store, or a newer one';

/** A store's config, and the state of its two copies. */
export interface ConfigRead {
  readonly config: StoreConfig;
  /** Names of the copies that are damaged. */
  readonly bad: readonly string[];
  /** Names of the copies that do not exist: the process that created the store was stopped in between. */
  readonly missing: readonly string[];
}

function encode(config: StoreConfig): Buffer {
  const line = toJsonString(StoreConfigSchema, config);
  return Buffer.from(`${line}\nsha256 ${createHash('sha256').update(line).digest('hex')}\n`);
}

function decode(bytes: Buffer): StoreConfig | undefined {
  const [line = '', sum = ''] = bytes.toString('utf8').split('\n');
  if (sum !== `sha256 ${createHash('sha256').update(line).digest('hex')}`) return undefined;
  // A flipped bit in the last line feed leaves both lines intact, but is damage too.
  if (!bytes.equals(Buffer.from(`${line}\n${sum}\n`))) return undefined;
  try {
    const config = fromJsonString(StoreConfigSchema, line, { ignoreUnknownFields: true });
    return config.storeId.length === STORE_ID_BYTES ? config : undefined;
  } catch {
    // Not JSON, or not a config: as useless as one whose checksum does not match.
    return undefined;
  }
}

function check(root: string, config: StoreConfig): void {
  const refuse = (what: string) =>
    new LightkeeperError('TOO_NEW', `Cannot open the store "${root}": it ${what}`, { hint: TOO_NEW_HINT });
  if (config.format !== STORE_FORMAT) throw formatError(`open the store "${root}"`, config.format);
  if (config.requiredFeatures !== 0) throw refuse(`needs features 0x${config.requiredFeatures.toString(16)}`);
  if (config.unitId !== 'sha256') throw refuse(`names units by ${config.unitId}`);
}

/** Reads the config of a store; undefined if there is none. DAMAGED if neither copy can be read. */
export async function readConfig(root: string): Promise<ConfigRead | undefined> {
  let config: StoreConfig | undefined;
  const bad: string[] = [];
  const missing: string[] = [];
  for (const name of COPIES) {
    const bytes = await readFile(join(root, name)).catch((error) => {
      if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
      throw ioError('read', join(root, name), error);
    });
    if (bytes === undefined) {
      missing.push(name);
      continue;
    }
    const read = decode(bytes);
    if (read === undefined) bad.push(name);
    config ??= read;
  }
  if (config === undefined) {
    if (missing.length === COPIES.length) return undefined;
    throw new LightkeeperError(
      'DAMAGED',
      `Cannot open the store "${root}": both copies of its config are damaged`,
      {
        hint: 'run lightkeeper repair: it restores the config from the packs',
      },
    );
  }
  check(root, config);
  return { config, bad, missing };
}

/** Writes both copies of a store's config. */
export async function writeConfig(root: string, config: StoreConfig): Promise<void> {
  for (const name of COPIES) await replaceFile(`store:${name}`, join(root, name), encode(config));
}

/** Returns the config of a new store, or of one whose id is known from its packs. */
export function newConfig(storeId: Uint8Array = randomBytes(STORE_ID_BYTES)): StoreConfig {
  return create(StoreConfigSchema, { format: STORE_FORMAT, storeId, unitId: 'sha256' });
}
