package tcplisten

import (
	"strconv"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
)

// A listener is one listening socket and what is known about it. It exists for as long
// as the socket listens.
type listener struct {
	table       *table
	socket      inet.Socket
	owner       owner.Socket
	cgroup      cgroup.Name  // of the cgroup in which the socket was created
	isNew       bool         // no successful gather has seen it yet
	generation  uint64       // of the last listing that saw it
	pass        uint64       // the last pass that saw it
	scan        uint64       // the last scan that saw it
	seen        time.Time    // when a scan first saw it, if no gather has seen it
	listenEvent *listenEvent // of its opening; nil if the kernel did not report it
	opened      time.Time    // when it opened, if listenEvent is set

	describedBy facts // what tags and key were made from
	tags        []metric.Tag
	key         string // tags as one string: the identity

	// The listener as packages changes and expect see it, and the verdict of the rules. They
	// are built again when the listener is described again.
	observed changes.Socket
	judged   *expect.Listener // nil without rules
	verdict  expect.Verdict
}

// facts are everything that the tags of a listener depend on.
type facts struct {
	socket inet.Socket // without its queue lengths
	owner  uint32      // owner.Socket.Version
	local  *netns.Local
	netns  string
	users  uint32 // listenerSet.usersVersion
}

// is reports whether s is this socket. The cookie alone is not enough: before Linux 5.10
// it is unique only within a namespace, whose number may be reused, and without netlink
// it is the inode number, which may be reused as well.
func (l *listener) is(s *inet.Socket) bool {
	return l.socket.Cookie == s.Cookie && l.socket.Inode == s.Inode &&
		l.socket.Port == s.Port && l.socket.Addr == s.Addr
}

// missing reports whether the last listing of its namespace did not include it.
func (l *listener) missing() bool { return l.generation != l.table.generation }

// describe makes the tags again if anything that they depend on has changed, and
// reports whether it has.
func (l *listener) describe(names userNames, usersVersion uint32) (changed bool) {
	now := facts{l.socket, l.owner.Version, l.table.local, l.table.name, usersVersion}
	now.socket.Backlog, now.socket.Limit = 0, 0
	if l.key != "" && l.describedBy == now {
		return false
	}
	l.describedBy, l.observed.Endpoint = now, changes.Endpoint{} // must be observed again
	tags := l.describeTags(names)
	if key := seriesKey(tags); key != l.key {
		l.tags, l.key = tags, key
	}
	return true // even with the same identity, since the holders may have changed
}

func (l *listener) describeTags(names userNames) []metric.Tag {
	s := &l.socket
	name, process := l.cgroup, ""
	if p := l.owner.Named(); p != nil {
		process = p.Comm
		if p.CgroupRead {
			name = p.Cgroup
		}
	}
	return metric.NewTags(
		"address", l.address(),
		"container", name.Container,
		"exposure", l.exposure().String(),
		"family", s.Family(),
		"netns", l.table.name,
		"owner", l.owner.Status.String(),
		"pod", name.Pod,
		"port", strconv.Itoa(int(s.Port)),
		"process", process,
		"unit", name.Unit,
		"user", names.Name(s.UID),
		"user_unit", name.UserUnit,
	)
}

// exposure returns from how far away the listener can be reached. It is inet.Nowhere if
// it is unreachable, or if the addresses of its namespace are not known.
func (l *listener) exposure() inet.Class {
	if l.table.local == nil {
		return inet.Nowhere
	}
	return l.table.local.Exposure(&l.socket)
}

// address returns the address as bound, with the device if the socket is bound to one.
func (l *listener) address() string {
	address := l.socket.Addr.String()
	if device := l.device(); device != "" {
		address += "%" + device
	}
	return address
}

// device returns the name of the device that the socket is bound to, or "".
func (l *listener) device() string {
	if l.socket.Device == 0 {
		return ""
	}
	if l.table.local != nil {
		if name, ok := l.table.local.DeviceName(l.socket.Device); ok {
			return escape.Name([]byte(name))
		}
	}
	return "if" + strconv.Itoa(int(l.socket.Device)) // the notation of ss for a device that no longer exists
}

// seriesKey joins tags into a string that is unique to them.
func seriesKey(tags []metric.Tag) string {
	n := 0
	for _, t := range tags {
		n += len(t.Key) + len(t.Value) + 2
	}
	b := make([]byte, 0, n)
	for _, t := range tags {
		b = append(b, t.Key...)
		b = append(b, 0xff) // never occurs in UTF-8
		b = append(b, t.Value...)
		b = append(b, 0xff)
	}
	return string(b)
}
