package tcplisten

import "sockwatch/inputs/internal/expect"

// A Report says what of a host breaks the rules.
type Report = expect.Report
