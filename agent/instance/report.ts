import { LightkeeperError } from '../../core/errors.ts';
import { finding, warning } from '../../core/finding.ts';
import { type Finding, type Instance, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import type { InstanceReport, InstanceSettings } from './probe.ts';

/** Storage classes that store their data as files in the working directory. */
const FILE_STORAGES = new Set([
  'JsonKVStorage',
  'JsonDocStatusStorage',
  'NanoVectorDBStorage',
  'FaissVectorDBStorage',
  'NetworkXStorage',
]);

/** Codes of the findings of an instance that says nothing about the graph. */
const CODES = {
  elsewhere: 'other_directory',
  'key-needed': 'instance_locked',
  'no-response': 'instance_silent',
  unusable: 'instance_unusable',
} as const;

const NO_WAIT = 'captures do not wait for it, nor trust it';

/** One line about an instance, for people. */
export interface InstanceLine {
  readonly message: string;
  /** What to do about it; empty if all is well. */
  readonly hint: string;
  /** Whether the instance serves the graph and responds. */
  readonly isWell: boolean;
}

/** Returns what is known of an instance as one line. */
export function instanceLine(report: InstanceReport, { url }: InstanceSettings): InstanceLine {
  if (report.kind !== 'own') return { ...problemText(report, url), isWell: false };
  const { workingDir, workspace } = report.instance;
  const where = workspace === '' ? workingDir : `${workingDir}, workspace "${workspace}"`;
  const message = `the instance at ${url} is ${versionText(report.instance)} and serves ${where || 'this graph'}`;
  return { message, hint: '', isWell: true };
}

function problemText(
  report: Exclude<InstanceReport, { kind: 'own' }>,
  url: string,
): { message: string; hint: string } {
  switch (report.kind) {
    case 'elsewhere':
      return {
        message: `the instance at ${url} is ${versionText(report.instance)} and serves another directory, ${report.dir}; ${NO_WAIT}`,
        hint: 'check --dir and --instance-url',
      };
    case 'key-needed':
      return {
        message: `the instance at ${url} needs another API key: ${report.why}; ${NO_WAIT}`,
        hint: 'name a file with its key with --api-key-file, or set LIGHTRAG_API_KEY',
      };
    case 'no-response':
      return {
        message: `the instance at ${url} does not respond: ${report.why}; ${NO_WAIT}`,
        hint: 'check --instance-url, or ignore this while the instance is stopped',
      };
    case 'unusable':
      return {
        message: `the server at ${url} does not respond as LightRAG does: ${report.why}; ${NO_WAIT}`,
        hint: 'check --instance-url',
      };
  }
}

function versionText({ version }: Instance): string {
  return version === '' ? 'LightRAG' : `LightRAG ${version}`;
}

/** Returns the finding of an instance that says nothing about the graph; undefined if it does. */
// The snapshot is as good without it, so it is no warning.
export function instanceFinding(report: InstanceReport, settings: InstanceSettings): Finding | undefined {
  if (report.kind === 'own') return undefined;
  const isOther = report.kind === 'elsewhere';
  // The settings are those of the directory above: another workspace is no surprise.
  if (isOther && settings.isInherited === true) return undefined;
  const object = isOther ? report.dir : settings.url;
  return finding(CODES[report.kind], Severity_Value.INFO, object, problemText(report, settings.url));
}

/**
 * Checks that the files of a graph are all of it. Returns findings; REFUSED if its instance stores a part elsewhere,
 * unless `allowPartial` is set.
 */
// A snapshot without that part could not be restored to a working graph.
export function checkStorages(instance: Instance, allowPartial: boolean): Finding[] {
  const foreign = Object.entries(instance.storages).filter(([, name]) => !FILE_STORAGES.has(name));
  if (foreign.length > 0 && !allowPartial) {
    const list = foreign.map(([kind, name]) => `${kind} in ${name}`).join(', ');
    throw new LightkeeperError(
      'REFUSED',
      `Cannot guard the graph of ${instance.url}: it stores ${list}, outside of the directory`,
      { hint: 'back those up separately, and guard the files alone with --allow-partial' },
    );
  }
  return foreign.map(([kind, name]) =>
    warning('outside_storage', kind, {
      message: `the instance stores it in ${name}; it is not in the snapshot`,
      hint: 'back it up separately, at the same time',
    }),
  );
}
