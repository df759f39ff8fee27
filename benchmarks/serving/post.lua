-- Posts the pictures of a list in turn, and prints what was measured as one line of JSON.
-- Arguments: the list (one path a line), then headers as "Name: value".
-- Every request is put together before the clock starts, so that asking costs little.

local requests = {}
local next_one = 0

function init(args)
   local headers = {}
   for position = 2, #args do
      local name, value = args[position]:match("^([^:]+): *(.*)$")
      headers[name] = value
   end
   for path in io.lines(args[1]) do
      local file = assert(io.open(path, "rb"))
      requests[#requests + 1] = wrk.format("POST", nil, headers, file:read("*a"))
      file:close()
   end
end

function request()
   next_one = next_one % #requests + 1
   return requests[next_one]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "bad_statuses": %d, "socket_errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout
   ))
end
