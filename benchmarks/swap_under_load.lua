-- One picture again and again; counts answers that are no 200, and those whose label is not their version's.
local answers, lost, mixed, versions = 0, 0, 0, {}
local labels = { [0] = "a", [1] = "b", [2] = "c" }
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  local file = io.open(arguments[1], "rb")
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = "image/jpeg"
  wrk.headers["Authorization"] = "Bearer " .. arguments[2]
  file:close()
  answers_seen, lost_seen, mixed_seen, versions_seen = 0, 0, 0, 0
end

function response(status, headers, body)
  answers_seen = answers_seen + 1
  if status ~= 200 then
    lost_seen = lost_seen + 1
    return
  end
  local version = tonumber(string.match(body, '"version":(%d+)'))
  local label = string.match(body, '"label":"(%a)"')
  if labels[version % 3] ~= label then
    mixed_seen = mixed_seen + 1
  end
  if not versions[version] then
    versions[version] = true
    versions_seen = versions_seen + 1
  end
end

function done(summary, latency, requests)
  for _, thread in ipairs(threads) do
    answers = answers + thread:get("answers_seen")
    lost = lost + thread:get("lost_seen")
    mixed = mixed + thread:get("mixed_seen")
  end
  local errors = summary.errors
  io.write(string.format(
    '\nFOUND {"answers": %d, "lost": %d, "mixed": %d, "versions": %d, "max_ms": %.1f, "p99_ms": %.1f, "p50_ms": %.1f}\n',
    answers, lost + errors.connect + errors.read + errors.write + errors.timeout, mixed,
    threads[1]:get("versions_seen"), latency.max / 1000, latency:percentile(99) / 1000, latency:percentile(50) / 1000))
end
