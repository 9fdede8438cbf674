import { mix, type Random } from './random.ts';

export type Language = 'en' | 'zh';

/** The purpose of a sentence. */
export type SentenceKind = 'filler' | 'entity' | 'relation' | 'question';

interface Vocabulary {
  readonly sentences: Readonly<Record<SentenceKind, readonly Template[]>>;
  readonly slots: Readonly<Record<string, readonly string[]>>;
  /** 64 syllables of equal length, so that a coined word determines its number. */
  readonly syllables: readonly string[];
  /** Ending of a person's name after two syllables. */
  readonly suffix: string;
  /** Kinds of coined entities, with their LightRAG types. */
  readonly kinds: readonly (readonly [name: string, type: string])[];
  readonly keywords: readonly string[];
  readonly offices: readonly string[];
  readonly districts: readonly string[];
}

/** Texts at even indices, names of slots at odd ones. */
type Template = readonly string[];

const templates = (...texts: string[]): Template[] => texts.map((text) => text.split(/\{(\w+)\}/));
const words = (list: string): string[] => list.split(' ');
const phrases = (list: string): string[] => list.split(', ');

const ENGLISH: Vocabulary = {
  sentences: {
    filler: templates(
      'The {adj} {thing} at {a} was measured on {n} {month}, and {who} found that it carried {big} litres a second.',
      'One {thing} beside the {place} failed twice in {month}; since then {a} keeps {adj} spares under number {big}.',
      '{who} could not say why the {place} had been left out of the {adj} plan.',
      'After {n} days of rain the {place} stood under water, but the {adj} {thing} that {who} had built held.',
      'According to the ledger of {month}, "the {adj} {thing}" cost {big} crowns, paid in {n} parts by {who}.',
      'Inspector {who} asked for a second {thing}, a {adj} one, to be ready before {month}.',
      'Visitors reach {a} from the {place} by a {adj} path of {big} metres, past the {thing}.',
      'In {month} the {place} was closed for {n} days while {who} relined the {adj} {thing}.',
      'Readings of {big} at the {place} differ from those at {a} by {n} per cent, which {who} calls {adj}.',
      '{who} and {who} agreed to paint the {thing} again and to leave the {adj} {place} as it is.',
    ),
    entity: templates(
      '{a} is a {adj} site near the {place}, known for the {thing} that was installed there in {month}.',
      '{a} is described in the report as a {adj} installation with {n} workers and a {thing}.',
      '{a} supplies the {place} with water and keeps a {adj} {thing} for emergencies.',
      '{a} was rebuilt after the flood of {month}; its {thing} is the "{adj}" one in the records.',
    ),
    relation: templates(
      '{a} depends on {b} for its {adj} {thing} and for repairs at the {place}.',
      '{a} and {b} share the {thing} beside the {place}, which {b} maintains.',
      '{a} reports the level of the {place} to {b} every {n} hours.',
    ),
    question: templates(
      'What does {a} know about the {adj} {thing} at the {place}?',
      'Which sites near the {place} depend on {a} for a {thing}?',
    ),
  },
  slots: {
    adj: words(
      'shallow brittle narrow silent weathered provisional northern copper disputed reliable hollow ' +
        'temporary crooked spare quiet municipal',
    ),
    thing: phrases(
      'turbine, sluice gate, ledger, pressure gauge, culvert, feed pump, ferry, boundary stone, kiln, ' +
        'water meter, lock, transformer, embankment, filter bed, crane, survey marker',
    ),
    place: phrases(
      'old quay, market square, reservoir, lower meadow, brick works, railway bridge, town archive, ' +
        'east canal, chapel hill, fish ladder, coal yard, ropewalk, tidal basin, orchard, toll house, dry dock',
    ),
    month: words('January February March April May June July August September October November December'),
  },
  syllables: ['b', 'd', 'f', 'g', 'h', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'w', 'z'].flatMap(
    (head) => ['a', 'e', 'i', 'o'].map((tail) => head + tail),
  ),
  suffix: 'n',
  kinds: [
    ['Mill', 'artifact'],
    ['Weir', 'location'],
    ['Pump House', 'artifact'],
    ['R&D Bench', 'organization'],
    ['Viaduct', 'location'],
    ['Survey', 'event'],
    ['Method', 'method'],
    ['Archive', 'data'],
  ],
  keywords: phrases(
    'water supply, maintenance, shared equipment, reporting, dependency, inspection, ownership',
  ),
  offices: phrases(
    'Harbour Office, Water Board, Survey Department, Canal Trust, Power Works, Town Council, Land Registry, Fire Watch',
  ),
  districts: words('North East South West'),
};

const CHINESE: Vocabulary = {
  sentences: {
    filler: templates(
      '{month}{n}日，{who}在{a}测量了{adj}{thing}，流量约为每秒{big}升。',
      '{place}旁边的{thing}在{month}两次停机，此后{a}一直备有编号{big}的{adj}备件。',
      '{who}说不清{place}为什么没有列入那份{adj}规划。',
      '连续下了{n}天雨以后，{place}被水淹没，但{who}建造的{adj}{thing}没有损坏。',
      '{month}的账册记载，“{adj}{thing}”共花费{big}元，由{who}分{n}次付清。',
      '检查员{who}要求在{month}之前再准备一台{adj}{thing}。',
      '从{place}经过{thing}步行约{big}米即可到达{a}。',
      '{month}，{who}更换{adj}{thing}，{place}因此关闭了{n}天。',
      '{place}的读数为{big}，与{a}相差百分之{n}，{who}认为这属于{adj}情况。',
      '{who}和{who}同意重新粉刷{thing}，{adj}{place}则保持原样。',
    ),
    entity: templates(
      '{a}位于{place}附近，是一处{adj}设施，以{month}安装的{thing}闻名。',
      '报告称{a}为{adj}单位，有{n}名工人和一台{thing}。',
      '{a}向{place}供水，并为紧急情况保留{adj}{thing}。',
    ),
    relation: templates(
      '{a}依靠{b}提供{adj}{thing}，并由其负责{place}的维修。',
      '{a}与{b}共用{place}旁的{thing}，日常由{b}维护。',
      '{a}每隔{n}小时向{b}报告{place}的水位。',
    ),
    question: templates('{a}对{place}的{adj}{thing}了解多少？', '{place}附近有哪些单位依靠{a}提供{thing}？'),
  },
  slots: {
    adj: words('老旧的 临时的 备用的 可靠的 狭窄的 北侧的 铜制的 有争议的 市属的 浅水的 新建的 倾斜的'),
    thing: words('水轮机 闸门 账册 压力表 涵洞 给水泵 渡船 界碑 窑炉 水表 变压器 堤坝 过滤池 起重机'),
    place: words('旧码头 集市 水库 下游草地 砖厂 铁路桥 档案馆 东运河 教堂山 鱼道 煤场 潮汐池 果园 收费站'),
    month: words('一月 二月 三月 四月 五月 六月 七月 八月 九月 十月 十一月 十二月'),
  },
  syllables: Array.from(
    '安白昌德恩丰甘海吉康兰茂宁平青仁盛泰文祥雅永泽正春东方光和金靖可丽明南鹏启荣山天旺新玉云长竹紫' +
      '秋江河湖林石松柏梅桂枫杨柳荷燕鹤雁',
  ),
  suffix: '',
  kinds: [
    ['水闸', 'artifact'],
    ['泵站', 'location'],
    ['车间', 'organization'],
    ['研究所', 'organization'],
    ['大桥', 'location'],
    ['勘测', 'event'],
    ['工法', 'method'],
    ['档案', 'data'],
  ],
  keywords: words('供水 维修 设备共用 水位报告 依赖关系 检查 产权'),
  offices: words('港务处 水利局 勘测院 运河公司 电厂 镇公所 地籍处 消防站'),
  districts: words('城北 城东 城南 城西'),
};

const VOCABULARIES: Readonly<Record<Language, Vocabulary>> = { en: ENGLISH, zh: CHINESE };

/** An entity that a single document mentions. */
export interface Coined {
  readonly name: string;
  readonly type: string;
}

/** Number of names that `sharedName` returns. */
export const SHARED_NAMES = 64;

/** Strides through the ten filler sentences, coprime to ten. */
const FILLER_STRIDES = [1, 3, 7, 9];
const SYLLABLES = 64;
const WORD_BITS = 24;

/** One past the largest number for `coinedEntity`. */
export const COINED_LIMIT = 2 ** WORD_BITS;

export function pick<T>(random: Random, list: readonly T[]): T {
  return list[random(list.length)] as T;
}

/** Returns a sentence about `a` and, where its kind has two subjects, `b`. */
export function sentence(language: Language, kind: SentenceKind, random: Random, a: string, b = ''): string {
  const vocabulary = VOCABULARIES[language];
  return filled(pick(random, vocabulary.sentences[kind]), vocabulary, random, a, b);
}

/** Returns `count` filler sentences about `subject`, different ones as long as there are any. */
export function paragraph(language: Language, random: Random, subject: string, count: number): string {
  const vocabulary = VOCABULARIES[language];
  const { filler } = vocabulary.sentences;
  const start = random(filler.length);
  const stride = pick(random, FILLER_STRIDES);
  const sentences = Array.from({ length: count }, (_, i) => {
    const template = filler[(start + i * stride) % filler.length] as Template;
    return filled(template, vocabulary, random, subject, '');
  });
  return sentences.join(language === 'en' ? ' ' : '');
}

function filled(template: Template, vocabulary: Vocabulary, random: Random, a: string, b: string): string {
  let text = template[0] as string;
  for (let i = 1; i < template.length; i += 2) {
    text += slotText(template[i] as string, vocabulary, random, a, b) + template[i + 1];
  }
  return text;
}

function slotText(slot: string, vocabulary: Vocabulary, random: Random, a: string, b: string): string {
  switch (slot) {
    case 'a':
      return a;
    case 'b':
      return b;
    case 'n':
      return String(2 + random(27));
    case 'big':
      return String(100 + random(9900));
    case 'who':
      return capitalised(
        pick(random, vocabulary.syllables) + pick(random, vocabulary.syllables) + vocabulary.suffix,
      );
    default:
      return pick(random, vocabulary.slots[slot] as readonly string[]);
  }
}

function capitalised(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** Returns the unique name and the type of the entity with a number. */
export function coinedEntity(language: Language, seed: number, number: number): Coined {
  const { syllables, kinds } = VOCABULARIES[language];
  const [kind, type] = kinds[mix(seed, number) % kinds.length] as readonly [string, string];
  // A multiplication by an odd factor and an exclusive or each permute the 24-bit numbers, so names stay distinct.
  let rest = (Math.imul(number, 0x9e3779b1) ^ mix(seed)) & (COINED_LIMIT - 1);
  let word = '';
  for (let bits = 0; bits < WORD_BITS; bits += 6, rest >>>= 6) word += syllables[rest % SYLLABLES];
  return language === 'en' ? { name: `${capitalised(word)} ${kind}`, type } : { name: word + kind, type };
}

/** Returns name `index` of the offices that many documents mention; odd ones are Chinese. */
export function sharedName(index: number): { name: string; language: Language } {
  const language = index % 2 === 0 ? 'en' : 'zh';
  const { offices, districts } = VOCABULARIES[language];
  const half = index >> 1;
  const office = offices[half % offices.length];
  const district = districts[Math.floor(half / offices.length)];
  return { name: language === 'en' ? `${district} ${office}` : `${district}${office}`, language };
}

/** Returns one or two keywords, joined like LightRAG does. */
export function keywords(language: Language, random: Random): string {
  const list = VOCABULARIES[language].keywords;
  const first = random(list.length);
  return random(2) === 0 ? (list[first] as string) : `${list[first]},${list[(first + 1) % list.length]}`;
}
