package livepage

import (
	"html/template"
	"sync"
	"time"

	"sockwatch/agent/metric"
)

// A row is one listener as everyone sees it: it has nothing that only trusted readers may
// see. It never changes. As long as a listener does not change from one gather to the next,
// its row is the same pointer.
type row struct {
	ID      string // 32 hex digits: hash of source, name and tags
	Source  string // of the batch
	Point   *metric.Point
	Port    string
	Address string // as shown: address with the port, "[::]:443"
	Netns   string

	Exposure string // "public", ..., "none"; "" if not gathered
	Process  string // "" if unknown
	PID      string
	User     string
	Where    string // unit, user unit, container or pod
	Owner    string // "resolved", "pending", ...
	Expected string // "yes", "no", "forbidden", "undecided"; "": no rules
	Rule     string

	Queue, QueueLimit int64 // accept queue; QueueLimit 0: not known
	Established       string
	Since             time.Time // first seen; zero: before sockwatch

	once sync.Once
	html template.HTML
}
