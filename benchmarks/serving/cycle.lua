-- Posts the files 0 … n-1 of a folder in turn. The requests are made once, so that sending one costs next to nothing.
-- Arguments: the folder, how many files, and, for a load that does not wait for answers, requests a second.
-- Ends with one line of JSON, times in microseconds.

local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanoseconds; } moment; int clock_gettime(int clock, moment *now);")

local requests, at = {}, 0
local now = ffi.new("moment")

local function milliseconds()
  ffi.C.clock_gettime(1, now)
  return tonumber(now.seconds) * 1000 + tonumber(now.nanoseconds) / 1e6
end

function init(args)
  for number = 0, tonumber(args[2]) - 1 do
    local file = assert(io.open(args[1] .. "/" .. number, "rb"))
    requests[number + 1] = wrk.format("POST", nil, nil, file:read("*a"))
    file:close()
  end
  local rate = tonumber(args[3])
  if rate then
    -- One timetable for all connections: whichever is free takes the next time on it. A timetable that fell
    -- behind, since every connection waits for its answer, is taken up again at the present.
    local due = milliseconds()
    function delay()
      local present = milliseconds()
      due = math.max(due + 1000 / rate, present - 100)
      return math.max(0, math.floor(due - present + 0.5))
    end
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
