import { create } from '@bufbuild/protobuf';
import { errorFinding } from '../../core/finding.ts';
import { spanOf } from '../../core/list.ts';
import { type BytePath, pathBytes, pathText } from '../../core/path.ts';
import {
  type FileEntry,
  FileEntrySchema,
  type ListRoot,
} from '../../gen/lightkeeper/store/v1/manifest_pb.ts';
import { FileType_Value, type Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { keptTime } from '../watch/names.ts';
import type { Entry } from '../watch/scan.ts';

export function tornFinding(changed: BytePath | undefined): Finding {
  return changed === undefined
    ? errorFinding('not_settled', '', {
        message: 'the directory did not come to rest in time; it was taken as it was',
        hint: 'wait longer with --settle-timeout',
      })
    : errorFinding('changed_while_read', pathText(changed), {
        message: 'it changed while it was read, at every attempt',
        hint: 'take the snapshot when nothing writes, or let "up" find such a moment',
      });
}

export function otherNameFinding(path: BytePath): Finding {
  return errorFinding('unreadable', pathText(path), {
    message: 'it is another name of a file that could not be read, and is not in the snapshot',
    hint: 'give the agent the right to read it, or exclude it',
  });
}

export function metadata(entry: Entry, type: FileType_Value) {
  const { mode, uid, gid } = entry;
  return { path: pathBytes(entry.path), type, mode, uid, gid, mtimeNs: keptTime(entry.mtimeNs) };
}

/** Whether an inode has been seen under another name before. */
export function secondName(links: Set<string>, entry: Entry): boolean {
  if (entry.links === '') return false;
  if (links.has(entry.links)) return true;
  links.add(entry.links);
  return false;
}

/** A scan entry as it is stored; undefined for a file whose bytes could not be had. */
export function fileEntry(
  entry: Entry,
  content: ListRoot | undefined,
  first: Map<string, BytePath>,
): FileEntry | undefined {
  if (entry.type === 'dir') return create(FileEntrySchema, metadata(entry, FileType_Value.DIRECTORY));
  if (entry.type === 'symlink') {
    return create(FileEntrySchema, {
      ...metadata(entry, FileType_Value.SYMLINK),
      target: pathBytes(entry.target),
    });
  }
  const other = entry.links === '' ? undefined : first.get(entry.links);
  if (other !== undefined) {
    return create(FileEntrySchema, {
      ...metadata(entry, FileType_Value.HARD_LINK),
      target: pathBytes(other),
    });
  }
  if (content === undefined) return undefined;
  if (entry.links !== '') first.set(entry.links, entry.path);
  // Of a torn file that is not what the scan saw.
  const size = BigInt(spanOf(content));
  return create(FileEntrySchema, { ...metadata(entry, FileType_Value.REGULAR), size, content });
}
