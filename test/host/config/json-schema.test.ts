import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { agentJsonSchema, GRAPH_KEYS, TOP_KEYS } from '../../../agent/config/schema.ts';
import type { JsonSchema } from '../../../host/config/json-schema.ts';
import type { Keys } from '../../../host/config/keys.ts';

function typeOf(value: unknown): string {
  if (Array.isArray(value)) return 'array';
  if (Number.isInteger(value)) return 'integer';
  return value === null ? 'null' : typeof value;
}

/** Returns where a value breaks the schema; knows the keywords that `JsonSchema` has. */
function violations(schema: JsonSchema, value: unknown, at = '$'): string[] {
  const types = schema.type === undefined ? [] : [schema.type].flat();
  const found: string[] = [];
  const check = (holds: boolean, keyword: string) => {
    if (!holds) found.push(`${at}: ${keyword}`);
  };
  check(types.length === 0 || types.includes(typeOf(value)), 'type');
  if (typeof value === 'string') {
    check(schema.enum === undefined || schema.enum.includes(value), 'enum');
    check(schema.pattern === undefined || new RegExp(schema.pattern, 'u').test(value), 'pattern');
    check([...value].length >= (schema.minLength ?? 0), 'minLength');
  }
  if (typeof value === 'number') {
    check(value >= (schema.minimum ?? value), 'minimum');
    check(value <= (schema.maximum ?? value), 'maximum');
  }
  if (Array.isArray(value)) {
    const { items = {} } = schema;
    found.push(...value.flatMap((one, i) => violations(items, one, `${at}[${i}]`)));
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, one] of Object.entries(value)) {
      const below = schema.properties?.[name];
      check(below !== undefined || schema.additionalProperties !== false, name);
      if (below !== undefined) found.push(...violations(below, one, `${at}.${name}`));
    }
  }
  return found;
}

const SCHEMA = agentJsonSchema();

/** Asserts that a schema has each key of a table with its description, and no other. */
function assertKeys(keys: Keys, schema: JsonSchema | undefined, at: string): void {
  assert.deepEqual(Object.keys(schema?.properties ?? {}), Object.keys(keys), at);
  assert.equal(schema?.additionalProperties, false, at);
  for (const [name, key] of Object.entries(keys)) {
    const below = schema?.properties?.[name];
    assert.ok(below?.description?.startsWith(key.about), `${at}.${name}`);
    assert.ok(below?.type !== undefined, `${at}.${name} has a type`);
    if (key.keys !== undefined) assertKeys(key.keys, below, `${at}.${name}`);
  }
}

describe('the JSON Schema of the settings', () => {
  it('is of draft 2020-12 and has every key of the tables', () => {
    assert.equal(SCHEMA.$schema, 'https://json-schema.org/draft/2020-12/schema');
    assertKeys(TOP_KEYS, SCHEMA, '$');
    assertKeys(GRAPH_KEYS, SCHEMA.properties?.graphs?.items, '$.graphs[]');
  });

  it('accepts the example of docs/operations.md', () => {
    const docs = readFileSync(join(import.meta.dirname, '../../../docs/operations.md'), 'utf8');
    const [, yaml = ''] = /```yaml\n([\s\S]*?)```/.exec(docs) ?? [];
    const example: unknown = parse(yaml);
    assert.equal(typeOf(example), 'object');
    assert.deepEqual(violations(SCHEMA, example), []);
  });

  const right = [
    'disk_reserve: 0',
    'scrub: 14d',
    'scrub: 0',
    'disk_reserve: 1.5 gIb',
    'graphs: [{dir: /d, quiet: 0, min_interval: 2 MIN, alarm_loss: 2.5 %, split: false}]',
    'graphs: [{dir: /d, instance_url: "HTTPS://h", ack: quorum(2), retention: {last: 3, tags: [a=b]}}]',
    'http: "[::1]:9701"',
    'log: {level: debug, format: json}',
  ];
  for (const yaml of right) {
    it(`accepts ${yaml}`, () => {
      assert.deepEqual(violations(SCHEMA, parse(yaml)), []);
    });
  }

  const wrong: readonly [yaml: string, where: string][] = [
    ['grphs: []', '$: grphs'],
    ['graphs: [{dri: /d}]', '$.graphs[0]: dri'],
    ['graphs: {dir: /d}', '$.graphs: type'],
    ['graphs: [{id: a b}]', '$.graphs[0].id: pattern'],
    ['graphs: [{quiet: 300}]', '$.graphs[0].quiet: maximum'],
    ['graphs: [{quiet: soon}]', '$.graphs[0].quiet: pattern'],
    ['graphs: [{retention: {hourly: -1}}]', '$.graphs[0].retention.hourly: minimum'],
    ['http: 9701', '$.http: type'],
    ['log: {level: loud}', '$.log.level: enum'],
    ['state: ""', '$.state: minLength'],
  ];
  for (const [yaml, where] of wrong) {
    it(`refuses ${yaml}`, () => {
      assert.deepEqual(violations(SCHEMA, parse(yaml)), [where]);
    });
  }
});
