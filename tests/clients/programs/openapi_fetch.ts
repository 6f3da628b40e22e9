// Everything that a client does, with types by openapi-typescript and openapi-fetch. Prints what it saw as JSON.
import createClient from "openapi-fetch";
import type { components, paths } from "./filmgate.js";

type Job = components["schemas"]["Job"];
type JobCreate = components["schemas"]["JobCreate"];
type JobEvent = components["schemas"]["JobEvent"];

const baseUrl = process.env.FILMGATE_URL!;
const connect = (key: string) => createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
const client = connect(process.env.FILMGATE_API_KEY!);

function order(prompt = "a kite", model = "sandbox/video"): JobCreate {
  return { prompt, model, seconds: 1, size: "128x96" };
}

async function create(body: JobCreate, key: string): Promise<Job> {
  const { data, error } = await client.POST("/v1/jobs", { body, params: { header: { "Idempotency-Key": key } } });
  if (!data) throw new Error(error?.detail);
  return data;
}

async function ended(job: Job): Promise<Job> {
  while (job.status === "queued" || job.status === "running") {
    const { data, error } = await client.GET("/v1/jobs/{job_id}", {
      params: { path: { job_id: job.id }, header: { Prefer: "wait=30" } },
    });
    if (!data) throw new Error(error?.detail);
    job = data;
  }
  return job;
}

const first = await create(order(), "first");
const again = await create(order(), "first");
const job = await ended(first);
const video = job.assets!.video;
const content = await client.GET("/v1/assets/{asset_id}/content", {
  params: { path: { asset_id: video.id } },
  parseAs: "arrayBuffer",
});

const slow = await create(order("a kite [slow:60]"), "second");
await client.POST("/v1/jobs/{job_id}/cancel", { params: { path: { job_id: slow.id } } });
const canceled = await ended(slow);

const listed: string[] = [];
let cursor: string | undefined;
do {
  const { data } = await client.GET("/v1/jobs", { params: { query: { limit: 1, cursor } } });
  listed.push(...data!.data.map((one) => one.id));
  cursor = data!.next_cursor ?? undefined;
} while (cursor);

const refused = [
  await connect("fgk_nothing").GET("/v1/jobs/{job_id}", { params: { path: { job_id: job.id } } }),
  await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: "job_nothing" } } }),
  await client.POST("/v1/jobs", { body: order("a kite", "no/such") }),
];

const events: string[] = [];
let url: string | undefined;
const stream = await client.GET("/v1/jobs/{job_id}/events", {
  params: { path: { job_id: job.id } },
  parseAs: "stream",
});
let rest = "";
for await (const piece of stream.response.body!.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\n");
  rest = lines.pop()!;
  for (const line of lines) {
    if (!line.startsWith("data: ")) continue;
    const event: JobEvent = JSON.parse(line.slice("data: ".length));
    events.push(event.type);
    if (event.type === "job.succeeded") url = event.data.assets?.video.content_url;
  }
}

console.log(
  JSON.stringify({
    replayed: again.id === first.id,
    status: job.status,
    size: video.size_bytes,
    downloaded: (content.data as ArrayBuffer).byteLength,
    canceled: canceled.status,
    listed: listed.sort().join() === [job.id, slow.id].sort().join(),
    problems: Object.fromEntries(refused.map(({ error }) => [error!.status, error!.code])),
    events,
    url: url === video.content_url,
  }),
);
