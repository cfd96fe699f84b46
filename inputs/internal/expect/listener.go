package expect

import (
	"net/netip"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// A Listener is one listening socket, as the rules see it. Its strings equal the tags of its
// point; "" means that the tag is absent. A Listener must not be modified once it has been
// passed to this package. If anything about the socket changes, create a new Listener.
type Listener struct {
	Netns    string     // "" is the host's
	Address  netip.Addr // as bound, without a zone
	Device   string     // the device that it is bound to, or its zone; "" if there is none
	Port     uint16
	Family   string // "ipv4", "ipv6" or "dual"
	Exposure inet.Class
	// ExposureUnknown reports that the addresses of the namespace could not be read, so Exposure
	// has no meaning.
	ExposureUnknown bool

	// These describe the socket. They are used if the owner is unknown.
	User, Unit, UserUnit, Container, Pod string
	// UserPending reports that the user name is not known yet and User is the numeric id.
	UserPending bool

	// OwnerUnknown reports that not every process could be inspected, so the owner is
	// pending, unreadable or exited.
	OwnerUnknown bool
	// OwnerPending reports that the search for the owner is still in progress. It implies
	// OwnerUnknown.
	OwnerPending bool
	// Holders are the processes that hold the socket, including managers.
	Holders []Holder

	// Tags are the tags of its point. Listeners with equal tags share a point.
	Tags []metric.Tag
	// Facts returns additional fields for events: pid, exe and so on. It may be nil. Evaluate
	// calls it for the few listeners that have events, even after the listener is gone.
	Facts func() []metric.Field
}

// A Holder is a process that holds a socket.
type Holder struct {
	Process string
	Exe     string // "" if it could not be read
	User    string // "": the user of the socket
	// These come from its cgroup. The unit is "" if the process is a manager.
	Unit, UserUnit, Container, Pod string
	// CgroupUnknown reports that its cgroup could not be read. The values of the socket are
	// used instead.
	CgroupUnknown bool
	// Manager reports that the process holds sockets on behalf of services that it activates.
	Manager bool
}

// String returns the listener's address and port, and its process if that is known.
func (l *Listener) String() string { return l.title() }
