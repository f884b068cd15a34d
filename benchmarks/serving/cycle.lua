-- Posts the files 0 … n-1 of a folder in turn. The requests are made once, so that sending one costs next to nothing.
-- Arguments: the folder, how many files. Ends with one line of JSON, times in microseconds.

local requests, at = {}, 0

function init(args)
  for number = 0, tonumber(args[2]) - 1 do
    local file = assert(io.open(args[1] .. "/" .. number, "rb"))
    requests[number + 1] = wrk.format("POST", nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local failed = summary.errors
  io.write(string.format(
    '\n{"duration": %d, "requests": %d, "p50": %d, "p90": %d, "p99": %d, "max": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.duration, summary.requests, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency.max, failed.connect, failed.read, failed.write, failed.status, failed.timeout))
end
