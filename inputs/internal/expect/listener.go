package expect

import (
	"net/netip"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// A Listener is one listening socket, as rules see it. Its strings are those of the
// tags of its point, "" if the tag is absent. It must not change once it is handed over:
// a listener of which something has changed is a new Listener.
type Listener struct {
	Netns    string     // "" is the host's
	Address  netip.Addr // as bound, without a zone
	Device   string     // that it is bound to, or its zone; "" if there is none
	Port     uint16
	Family   string // "ipv4", "ipv6" or "dual"
	Exposure inet.Class

	// Of the socket. They count for a listener whose owner is not known.
	User, Unit, UserUnit, Container, Pod string
	// UserPending reports that the name of the user is not known yet: User is the number.
	UserPending bool

	// OwnerUnknown reports that not every process could be looked at: the owner is
	// pending, unreadable or exited.
	OwnerUnknown bool
	// OwnerPending reports that the search for the owner has not ended. OwnerUnknown is
	// true then, too.
	OwnerPending bool
	// Holders are the processes that hold the socket, managers included.
	Holders []Holder

	// Tags are those of its point. Listeners with equal tags are one point.
	Tags []metric.Tag
	// Facts returns the fields that events have beyond those of this package: pid, exe
	// and so on. It may be nil. It is called within Evaluate, for the few listeners that
	// have events, also after the listener has gone.
	Facts func() []metric.Field
}

// A Holder is a process that holds a socket.
type Holder struct {
	Process string
	Exe     string // "" if it could not be read
	User    string // "": that of the socket
	// Of its cgroup. The unit is "" if the process is a manager.
	Unit, UserUnit, Container, Pod string
	// CgroupUnknown reports that its cgroup could not be read: those of the socket count.
	CgroupUnknown bool
	// Manager reports that it holds sockets for the services that it activates.
	Manager bool
}

// String returns the listener's address and port, and its process if that is known.
func (l *Listener) String() string { return l.title() }
