package changes

import (
	"encoding/json"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// Options are what a configuration says of changes.
type Options struct {
	Point      string        // name of the points the input makes of sockets: "tcp_listen"
	Settle     time.Duration // how long an endpoint must be gone to be closed
	SettleBoot time.Duration // the same after a boot
	OwnerWait  time.Duration // how long an event waits at most for the search for the owner
	Remember   time.Duration // how long a closed endpoint is remembered
	MaxKnown   int           // how many closed endpoints are remembered
	MaxPerUser int           // opened, returned or closed events of one user and look, each
	// Expected are the values that Verdict.Expected may have; none without rules. They
	// make the tag expected of events and totals.
	Expected []string
}

// A Moment is the time of a look by all clocks that matter.
type Moment struct {
	Time   time.Time     // the wall clock, which may be set at any time
	Mono   time.Duration // CLOCK_MONOTONIC: since the boot, without suspended time
	Uptime time.Duration // CLOCK_BOOTTIME: since the boot, with suspended time
	Boot   string        // the boot id
}

// A Snapshot is what one complete look at a host has found.
type Snapshot struct {
	Moment
	// Scope says which namespaces the options include, in any words. In a look with
	// another scope than the one before, no namespace that is new is an event, nor one
	// that is gone.
	Scope string
	// Namespaces are all namespaces of the scope that exist.
	Namespaces []Namespace
	Sockets    []Socket  // in any order
	Glimpses   []Glimpse // in order of time
}

// A Namespace is a network namespace, and how it was looked at.
type Namespace struct {
	Name string // as in the tag netns; "" for the host's
	// View names the back end that listed it ("netlink", "procfs"). The first look at it by
	// another one, or after a failure, is a baseline: nothing in it is an event.
	View string
	// Failed reports that it could not be listed. Its sockets of before are taken to be
	// there; those in the Snapshot are ignored.
	Failed bool
}

// A Glimpse is a socket that was seen between two snapshots only: it has opened and
// closed.
type Glimpse struct {
	Time time.Time
	Socket
}

// An Endpoint is where a program can listen. Several sockets may share it.
type Endpoint struct {
	Netns   string // as in the tag netns; "" for the host's
	Address string // as bound, with the device: as in the tag address
	Port    uint16
}

// A SocketID distinguishes a socket from every other one of the same boot.
type SocketID struct {
	Netns  uint64 `json:"n"` // inode of the namespace
	Cookie uint64 `json:"c"`
	Inode  uint64 `json:"i"`
}

// A Socket is one listening socket as a look has found it.
type Socket struct {
	Endpoint
	ID  SocketID
	UID uint32 // of the socket
	Own bool   // this program holds it: that it is another one after a restart is no event

	// Exposure is how far it can be reached. ExposureUnknown: the addresses of its
	// namespace could not be read, so that Exposure means nothing.
	Exposure        inet.Class
	ExposureUnknown bool

	Status Status
	// Holders are the processes that hold it, in the order of owner.Compare: who started
	// first comes first, managers last.
	Holders []Holder

	Tags    []metric.Tag // of the point that the socket is part of; kept, never changed
	Verdict Verdict
}

// A Status says what is known of a socket's holders.
type Status uint8

// The values of Status.
const (
	Pending Status = iota // they are still being searched
	Unknown               // the search has ended, and nobody was found: unreadable or exited
	Known                 // Holders has at least one
	None                  // no process holds it: that is proven
)

// A Holder is a process that holds a socket.
type Holder struct {
	PID     int
	Start   uint64 // in ticks after the boot, never 0; with PID it is unique within a boot
	Manager bool   // it holds sockets for the services that it activates
	Key     Key
	Facts   Facts
}

// A Key is by what an owner is recognized after a restart. The user is the number: one
// whose name resolves later stays the same owner.
type Key struct {
	Process     string `json:"p"`
	UID         uint32 `json:"u"`
	Unit        string `json:"unit"`
	UserUnit    string `json:"user_unit"`
	InContainer bool   `json:"c"`
}

// Facts are what the fields of events say of a process. What is unknown is zero, and
// its field absent.
type Facts struct {
	Exe         string    `json:"exe"`
	ExeDeleted  bool      `json:"deleted"`
	ExeSHA256   string    `json:"sha256"`
	Start       time.Time `json:"start"`
	Parent      Parent    `json:"parent"`
	LoginUID    uint32    `json:"login"`
	HasLoginUID bool      `json:"has_login"`
	Cmdline     string    `json:"cmdline"`
}

// A Parent is what an event says of the process that started another.
type Parent struct {
	PID     int    `json:"pid"`
	Process string `json:"process"`
	Exe     string `json:"exe"`
}

// A Verdict is what the rules say of a socket. Without rules it is zero.
type Verdict struct {
	Expected string `json:"expected"`
	Rule     string `json:"rule"`
	Why      string `json:"why"`
}

// A Result is what a look has changed.
type Result struct {
	// Events are points NAME_event, in the order of netns, port and address. They do not have the
	// fields history and sequence.
	Events []metric.Point
	// Set has the records to write together with Events; a nil record is to be deleted.
	// Keys begin with "e:" and "t:".
	Set map[string]json.RawMessage
}
