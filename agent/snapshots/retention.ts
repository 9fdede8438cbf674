import { create } from '@bufbuild/protobuf';
import { LightkeeperError } from '../../core/errors.ts';
import { annotate, capturedMs } from '../../core/manifest.ts';
import type { OnProgress } from '../../core/progress.ts';
import { applyRetention, type Candidate, isEmptyPolicy, type RetentionPlan } from '../../core/retention.ts';
import {
  alarmsOf,
  type CommittedSnapshot,
  gradeOf,
  idOf,
  isAlarming,
  isCommitted,
  isTorn,
  isUsable,
} from '../../core/snapshot.ts';
import {
  type PruneRequest,
  PruneResultSchema,
  type RetentionPolicy,
  type SnapshotSummary,
} from '../../gen/lightkeeper/v1/agent_pb.ts';
import { type Annotation, Grade_Value } from '../../gen/lightkeeper/v1/types_pb.ts';
import { now } from '../../host/clock.ts';
import { enterAnnotation } from '../store/index/reconcile.ts';
import type { Store } from '../store/store.ts';
import { Ingest } from '../store/transaction.ts';
import {
  checkClock,
  collect,
  markDeleted,
  newestMs,
  planCollection,
} from '../store/upkeep/collect-garbage.ts';
import { selectSnapshot } from './resolve.ts';
import { summaryView } from './views.ts';

/** What stays and what goes: the calls that remove snapshots, and those that say something about them. */
export class Keeping {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Applies a policy to one graph or to all, then gives back space. */
  async prune({ graphId, policy, dryRun }: PruneRequest, onProgress: OnProgress) {
    if (policy === undefined || isEmptyPolicy(policy)) {
      throw new LightkeeperError(
        'REFUSED',
        'Cannot prune as the policy is empty: it would keep nothing but the last points',
        {
          hint: 'say what to keep, for instance --keep-within 1d --keep-daily 30',
        },
      );
    }
    return await this.#store.exclusively(async () => {
      const plan: RetentionPlan = { keep: [], remove: [] };
      const removed: { record: CommittedSnapshot; reason: string }[] = [];
      for (const graph of graphId === '' ? await this.#store.index.graphs() : [graphId]) {
        checkClock(await newestMs(this.#store, graph));
        const one = await this.#planGraph(graph, policy, removed);
        plan.keep.push(...one.keep);
        plan.remove.push(...one.remove);
      }
      const result = create(PruneResultSchema, { ...plan, dryRun });
      if (dryRun) {
        const { plan: packs } = await planCollection(
          this.#store,
          new Set(plan.remove.map(({ snapshotId }) => snapshotId)),
        );
        result.bytesFreed = BigInt(packs.freedBytes);
        return result;
      }
      const before = await this.#packBytes();
      await markDeleted(this.#store, removed);
      await collect(this.#store, (done, total) => onProgress('rewriting packs', done, total));
      const freed = before - (await this.#packBytes());
      result.bytesFreed = freed > 0n ? freed : 0n;
      return result;
    });
  }

  /** Whether a policy would remove anything of a graph: that is known without looking at every unit of the store. */
  async wouldPrune(graphId: string, policy: RetentionPolicy): Promise<boolean> {
    checkClock(await newestMs(this.#store, graphId));
    return (await this.#planGraph(graphId, policy, [])).remove.length > 0;
  }

  /** Gives back the space of what no snapshot needs, whatever left it behind. */
  async sweep(): Promise<void> {
    await this.#store.exclusively(() => collect(this.#store, () => {}));
  }

  async #packBytes(): Promise<bigint> {
    let bytes = 0n;
    for await (const [, pack] of this.#store.index.packs()) bytes += pack.size;
    return bytes;
  }

  async #planGraph(
    graphId: string,
    policy: RetentionPolicy,
    removed: { record: CommittedSnapshot; reason: string }[],
  ): Promise<RetentionPlan> {
    const records = new Map<string, CommittedSnapshot>();
    const candidates: Candidate[] = [];
    for (const side of [false, true]) {
      for await (const [, record] of this.#store.index.records({ graphId, side })) {
        if (!isCommitted(record)) continue;
        records.set(idOf(record), record);
        candidates.push(candidate(record));
      }
    }
    const plan = applyRetention(candidates, policy, now());
    for (const { snapshotId, reasons } of plan.remove) {
      const record = records.get(snapshotId);
      if (record !== undefined) removed.push({ record, reason: `prune: ${reasons.join(', ')}` });
    }
    return plan;
  }

  async delete(name: string, graphId: string, reason: string, dryRun: boolean) {
    return await this.#store.exclusively(async () => {
      const { record } = await selectSnapshot(this.#store, name, graphId);
      const snapshotId = idOf(record);
      if (record.pinned) {
        throw new LightkeeperError('REFUSED', `Cannot delete snapshot "${snapshotId}": it is pinned`, {
          hint: `run lightkeeper unpin ${snapshotId.slice(0, 8)} first`,
        });
      }
      if (!(await this.#hasAnother(record))) {
        const what = isUsable(record) ? 'last usable point' : 'last point that may be usable';
        throw new LightkeeperError(
          'REFUSED',
          `Cannot delete snapshot "${snapshotId}": it is the ${what} of "${record.manifest.graphId}"`,
          { hint: 'take another snapshot first' },
        );
      }
      if (!dryRun)
        await markDeleted(this.#store, [{ record, reason: reason === '' ? 'deleted by hand' : reason }]);
      return { snapshotId, dryRun };
    });
  }

  /** Whether there is another point that is worth as much, or more. */
  async #hasAnother(record: CommittedSnapshot): Promise<boolean> {
    const worths = ['broken', 'ungraded', 'usable'];
    const own = worths.indexOf(worthOf(record));
    if (own === 0) return true;
    for await (const [, other] of this.#store.index.records({ graphId: record.manifest.graphId })) {
      if (!isCommitted(other) || idOf(other) === idOf(record)) continue;
      if (worths.indexOf(worthOf(other)) >= own) return true;
    }
    return false;
  }

  async pin(name: string, graphId: string, pinned: boolean): Promise<SnapshotSummary> {
    return await this.#annotate(name, graphId, () => ({
      case: 'pinned',
      value: { $typeName: 'lightkeeper.v1.Pinned', pinned },
    }));
  }

  async tag(
    name: string,
    graphId: string,
    set: Readonly<Record<string, string>>,
    remove: readonly string[],
  ): Promise<SnapshotSummary> {
    return await this.#annotate(name, graphId, ({ tags }) => ({
      case: 'tagged',
      value: { $typeName: 'lightkeeper.v1.Tagged', tags: newTags(tags, set, remove) },
    }));
  }

  /** Takes note that the alarms of a snapshot have been seen. */
  async acknowledge(name: string, graphId: string, reason: string): Promise<SnapshotSummary> {
    return await this.#annotate(name, graphId, (record) => {
      const id = idOf(record).slice(0, 12);
      if (reason === '') throw withoutReason(`acknowledge snapshot "${id}"`);
      if (alarmsOf(record).length === 0) {
        throw new LightkeeperError(
          'INVALID_ARGUMENT',
          `Cannot acknowledge snapshot "${id}": it has no alarm`,
          {
            hint: 'look for the one with an alarm: lightkeeper list',
          },
        );
      }
      return {
        case: 'acknowledged',
        value: { $typeName: 'lightkeeper.v1.Acknowledged', reason },
      };
    });
  }

  /** Notes something of a snapshot, durably. */
  async #annotate(
    name: string,
    graphId: string,
    what: (record: CommittedSnapshot) => Annotation['what'],
  ): Promise<SnapshotSummary> {
    return await this.#store.exclusively(async () => {
      const { at, record } = await selectSnapshot(this.#store, name, graphId);
      const ingest = new Ingest(this.#store);
      const notes = [{ digest: record.digest, what: what(record) }];
      try {
        await ingest.commitAnnotations(notes, now(), async (batch, annotation) => {
          annotate(record, annotation);
          await enterAnnotation(this.#store, batch, annotation);
        });
      } catch (error) {
        await ingest.abandon();
        throw error;
      }
      const after = await this.#store.index.record(at);
      return summaryView(after !== undefined && isCommitted(after) ? after : record);
    });
  }
}

/** The error of a call that is only made with a reason. */
export function withoutReason(doing: string): LightkeeperError {
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot ${doing} without a reason`, {
    hint: 'say why with --reason',
  });
}

function candidate(record: CommittedSnapshot): Candidate {
  return {
    snapshotId: idOf(record),
    capturedMs: capturedMs(record.manifest),
    tags: record.tags,
    pinned: record.pinned,
    worth: worthOf(record),
    side: isTorn(record.manifest),
    alarming: isAlarming(record),
  };
}

function worthOf(record: CommittedSnapshot): Candidate['worth'] {
  if (isUsable(record)) return 'usable';
  return gradeOf(record) === Grade_Value.UNGRADED ? 'ungraded' : 'broken';
}

function newTags(
  old: Readonly<Record<string, string>>,
  set: Readonly<Record<string, string>>,
  remove: readonly string[],
) {
  const tags = { ...old, ...set };
  for (const name of remove) delete tags[name];
  return tags;
}
