package tcplisten

import "sockwatch/inputs/internal/expect"

// A Report lists what breaks the rules on a host.
type Report = expect.Report
