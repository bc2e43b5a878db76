// Shapes of answers. What the server's own description says is taken from it; the rest is named here.
import type { components } from './schema';

type Schemas = components['schemas'];
export type Answer = Schemas['Answer'];
export type ReportsAnswer = Schemas['ReportsAnswer'];
export type ValuesAnswer = Schemas['ValuesAnswer'];
export type Preview = Schemas['Preview'];
export type Outcome = Schemas['Outcome'];
export type Me = Schemas['Me'];
export type Refusal = Schemas['Refusal'];
export type View = Schemas['View'];
export type MetricValues = Schemas['MetricValues'];

export type Attribute = { name: string; texts: number; numbers: number; booleans: number };
export type Project = { name: string; created: number; metric_sets: string[]; submission_urls: string[] };
export type QueryBody = { filter?: Record<string, [string, string?][]>[]; group?: string[]; fold?: Record<string, [string][]> };
export type Metric = {
  name: string;
  set: string;
  query: QueryBody;
  zero_for: number | null;
  series_budget: number;
  revision: number;
  begins: number;
  warnings: string[];
};
export type MetricSet = { name: string; metrics: Metric[]; stores: string[] };
export type Field = {
  name: string;
  kind: string;
  required: boolean;
  default: string | number | boolean | null;
  choices: string[];
  generated: boolean;
  help: string;
  example: string;
};
export type Adapter = { name: string; title: string; direction: 'push' | 'pull'; summary: string; fields: Field[] };
export type Store = Record<string, unknown> & {
  name: string;
  adapter: string;
  period: number;
  sets: string[];
  prefix: string;
  labels: Record<string, string>;
  enabled: boolean;
  paused: boolean;
  revision: number;
  first_window_start: number;
  secrets_set: string[];
  url?: string;
  username?: string | null;
  password?: string;
  warnings?: string[];
};
export type Attempt = {
  window_start: number;
  at: number;
  outcome: string;
  text: string;
  points: number;
  bytes: number;
  millis: number;
};
export type Points = Record<'due' | 'confirmed' | 'sent' | 'refused' | 'excluded' | 'open' | 'expired' | 'cancelled', number>;
export type StoreStatus = {
  adapter: string;
  period: number;
  status: { state: string; reason?: string; next_attempt?: number };
  newest_sealed_window: number | null;
  next_window_end: number;
  points: Points;
  imbalance: string;
  open_windows: number;
  oldest_open_window: number | null;
  last_success: number | null;
  last_read: { at: number; reader: string } | null;
  attempts: Attempt[];
  over_budget: unknown[];
  will_expire: { detail: string } | null;
  gaps: { from: number; to: number; detail: string }[];
  backfill: Backfill | null;
  metadata: { told: number; failure: string | null } | null;
};
export type Backfill = { from: number; to: number; next: number; outcome: string | null; open_points: number };
export type Snippet = { title: string; language: string; text: string };
export type WireRequest = { request: string; headers?: string[]; points: number; bytes: number; body: string; cut: boolean };
export type Wire = {
  window_start: number;
  series: number;
  points: number;
  bytes: number;
  requests?: WireRequest[];
  content_type?: string;
  body?: string;
  cut?: boolean;
  excluded: { reason: string }[];
  notes: { raw: string; written: string }[];
};
export type Report = {
  tx: number;
  attributes: Record<string, unknown>;
  attachments: { id: string; name: string; size: number; content_type: string }[];
};
