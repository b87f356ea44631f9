// SPDX-License-Identifier: BSD-3-Clause
// Routes live in the proxy's memory. After a start of the proxy: wait until its API answers, then ask the hub to
// publish its routes again; left alone, the hub would notice only at its next look.
// A hub that is down is no error: it publishes its routes when it starts. One that is busy is asked again.
// Runs beside the proxy: nothing waits for it.
// Usage: node refresh-routes.mjs PROXY_API_URL HUB_URL   (tokens from the environment; HUB_URL ends in a slash)

import { setTimeout as sleep } from "node:timers/promises";

const PROXY_TIMEOUT_MS = 60_000;
const HUB_TIMEOUT_MS = 10_000;
const TRIES = 10;
const PAUSE_MS = 5_000;

async function proxyAnswers(url, token) {
  const deadline = Date.now() + PROXY_TIMEOUT_MS;
  while (Date.now() < deadline) {
    try {
      const answer = await fetch(new URL("/api/routes", url), {
        headers: { Authorization: `token ${token}` },
        signal: AbortSignal.timeout(1000),
      });
      if (answer.ok) return true;
    } catch (error) {
      if (!(error instanceof TypeError) && error.name !== "TimeoutError") throw error;
    }
    await sleep(50);
  }
  return false;
}

// One request: "done", "again" (the hub is busy) or "refused".
async function ask(url, token) {
  let answer;
  try {
    answer = await fetch(new URL("api/proxy", url), {
      method: "POST",
      headers: { Authorization: `token ${token}` },
      signal: AbortSignal.timeout(HUB_TIMEOUT_MS),
    });
  } catch (error) {
    if (error.name === "TimeoutError") {
      console.log(`The hub at ${url} has not answered for ${HUB_TIMEOUT_MS / 1000} s.`);
      return "again";
    }
    const reason = error.cause?.code ?? error.message;
    console.log(`The hub at ${url} does not answer (${reason}): it publishes its routes when it starts.`);
    return "done";
  }
  if (answer.ok) {
    console.log(`The hub at ${url} has published its routes.`);
    return "done";
  }
  console.error(`The hub at ${url} answered ${answer.status} to the request for its routes.`);
  return answer.status < 500 ? "refused" : "again";
}

async function refresh(url, token) {
  for (let tries = TRIES; tries > 0; tries--) {
    const outcome = await ask(url, token);
    if (outcome !== "again") return outcome === "done";
    await sleep(PAUSE_MS);
  }
  return false;
}

const [proxyUrl, hubUrl] = process.argv.slice(2);
const { CONFIGPROXY_AUTH_TOKEN: proxyToken, PROXY_REFRESH_TOKEN: hubToken } = process.env;

if (!(await proxyAnswers(proxyUrl, proxyToken))) {
  console.error(`The proxy's API at ${proxyUrl} did not answer within ${PROXY_TIMEOUT_MS / 1000} s.`);
  process.exitCode = 1;
} else if (!(await refresh(hubUrl, hubToken))) {
  process.exitCode = 1;
}
