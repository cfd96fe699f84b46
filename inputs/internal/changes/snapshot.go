package changes

import (
	"encoding/json"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// Options are the options of a Tracker.
type Options struct {
	Point      string        // name of the input's points for sockets: "tcp_listen"
	Settle     time.Duration // how long an endpoint must be missing to be closed
	SettleBoot time.Duration // the same after a boot
	OwnerWait  time.Duration // maximum time that an event waits for the search for the owner
	Remember   time.Duration // how long a closed endpoint is remembered
	MaxKnown   int           // maximum number of closed endpoints that are remembered
	MaxPerUser int           // maximum number of opened, of returned and of closed events of a user in a scan
	// Expected are the values that Verdict.Expected may have; none without rules. They become
	// the tag expected of events and totals.
	Expected []string
}

// A Moment is the time of a scan by all relevant clocks.
type Moment struct {
	Time   time.Time     // wall clock, which may be set at any time
	Mono   time.Duration // CLOCK_MONOTONIC: since the boot, without suspended time
	Uptime time.Duration // CLOCK_BOOTTIME: since the boot, with suspended time
	Boot   string        // the boot id
}

// A Snapshot is the result of one complete scan of a host.
type Snapshot struct {
	Moment
	// Scope identifies which namespaces the options include, in any form. If it differs from
	// that of the scan before, there are no events for namespaces that have appeared or
	// disappeared.
	Scope string
	// Namespaces are all existing namespaces within the scope.
	Namespaces []Namespace
	Sockets    []Socket     // in any order
	ShortLived []ShortLived // in chronological order
	// Closed has when sockets closed since the last scan, by cookie, if that is known exactly.
	Closed map[uint64]time.Time
}

// A Namespace is a network namespace, and how it was listed.
type Namespace struct {
	Name string // as in the tag netns; "" for the host's
	// View names the back end that listed it ("netlink", "procfs"). The first listing by
	// another one, or after a failure, is a baseline: it causes no events.
	View string
	// Failed reports that it could not be listed. Its known sockets are assumed to be still
	// open; those in the Snapshot are ignored.
	Failed bool
}

// A ShortLived is a socket that was seen only between two snapshots: it has opened and closed.
type ShortLived struct {
	Time time.Time
	Socket
}

// An Endpoint is where a program can listen. Several sockets may share it.
type Endpoint struct {
	Netns   string // as in the tag netns; "" for the host's
	Address string // as bound, with the device: as in the tag address
	Port    uint16
}

// A SocketID identifies a socket among all sockets of a boot.
type SocketID struct {
	Netns  uint64 `json:"n,omitzero"` // inode of the namespace
	Cookie uint64 `json:"c,omitzero"`
	Inode  uint64 `json:"i,omitzero"`
}

// A Socket is one listening socket as a scan found it.
type Socket struct {
	Endpoint
	ID  SocketID
	UID uint32 // of the socket
	Own bool   // this program holds it; its own restarts are not events

	// Exposure is how far away it can be reached from. ExposureUnknown: the addresses of its
	// namespace could not be read, so Exposure has no meaning.
	Exposure        inet.Class
	ExposureUnknown bool

	// Opened is when it began to listen, if that is known exactly; else zero. ListenPID is the
	// process that called listen then.
	Opened    time.Time
	ListenPID int

	Status Status
	// Holders are the processes that hold it, in the order of owner.Compare: by start time,
	// with managers last.
	Holders []Holder

	Tags    []metric.Tag // of the point that includes the socket; kept, so never changed
	Verdict Verdict
}

// A Status is what is known about a socket's holders.
type Status uint8

// The values of Status.
const (
	Pending Status = iota // the search is under way
	Unknown               // the search has ended without a result: unreadable or exited
	Known                 // Holders has at least one
	None                  // it is proven that no process holds it
)

// A Holder is a process that holds a socket.
type Holder struct {
	PID     int
	Start   uint64 // in ticks after the boot, never 0; unique within a boot together with PID
	Manager bool   // it holds sockets for the services that it activates
	Key     Key
	Facts   Facts
}

// A Key is what identifies an owner across restarts. The user is a number, so an owner stays
// the same when the name of the user resolves later.
type Key struct {
	Process     string `json:"p,omitzero"`
	UID         uint32 `json:"u,omitzero"`
	Unit        string `json:"unit,omitzero"`
	UserUnit    string `json:"user_unit,omitzero"`
	InContainer bool   `json:"c,omitzero"`
}

// Facts are what the fields of events report about a process. Unknown facts are zero, and
// their fields are absent.
type Facts struct {
	Exe         string    `json:"exe,omitzero"`
	ExeDeleted  bool      `json:"deleted,omitzero"`
	ExeSHA256   string    `json:"sha256,omitzero"`
	Start       time.Time `json:"start,omitzero"`
	Parent      Parent    `json:"parent,omitzero"`
	LoginUID    uint32    `json:"login,omitzero"`
	HasLoginUID bool      `json:"has_login,omitzero"`
	Cmdline     string    `json:"cmdline,omitzero"`
}

// A Parent is what an event reports about the process that started another.
type Parent struct {
	PID     int    `json:"pid,omitzero"`
	Process string `json:"process,omitzero"`
	Exe     string `json:"exe,omitzero"`
}

// A Verdict is the outcome of the rules for a socket. Without rules it is zero.
type Verdict struct {
	Expected string `json:"expected,omitzero"`
	Rule     string `json:"rule,omitzero"`
	Why      string `json:"why,omitzero"`
}

// A Result is the outcome of a scan.
type Result struct {
	// Events are points NAME_event, in the order of netns, port and address. They do not have
	// the fields history and sequence yet.
	Events []metric.Point
	// Set has the records to write together with Events. A nil record means delete.
	// Keys begin with "e:" and "t:".
	Set map[string]json.RawMessage
}
