package tcplisten

import (
	"strconv"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/users"
)

// A listener is what is known of one listening socket, for as long as it is there.
type listener struct {
	space  *space
	socket inet.Socket
	owner  owner.Socket
	cgroup cgroup.Name // of the cgroup that the socket was made in
	since  int64       // when it was first seen, in Unix time; 0: it stood before
	isNew  bool        // it was not there at the gather before
	stamp  uint64      // of the listing that saw it last

	established int // connections, where they are counted

	made made // what tags and key were made of
	tags []metric.Tag
	key  string // tags as one string: the identity
}

// made holds the versions of everything that tags depend on, beside the socket.
type made struct {
	owner, local, users uint32
	done                bool
}

// is tells whether a listing means this socket. Its cookie is the same; without
// netlink that is its inode, which another one may have after it.
func (l *listener) is(s *inet.Socket) bool {
	return l.socket.Port == s.Port && l.socket.Addr == s.Addr
}

// sight takes over what a listing says of the socket, and tells whether that has
// changed.
func (l *listener) sight(s *inet.Socket) (changed bool) {
	l.stamp = l.space.stamp
	if l.socket == *s {
		return false
	}
	before, now := l.socket, *s
	before.Backlog, before.Limit = now.Backlog, now.Limit
	if before != now {
		l.made.done = false
	}
	l.socket = *s
	return true
}

// unseen tells whether the last listing of its space was without it.
func (l *listener) unseen() bool { return l.stamp != l.space.stamp }

// describe makes the tags anew where something they depend on has changed.
func (l *listener) describe(users *users.Names, named uint32) (changed bool) {
	now := made{l.owner.Version, l.space.local, named, true}
	if l.made == now {
		return false
	}
	l.made = now
	tags := l.describeTags(users)
	key := seriesKey(tags)
	if key == l.key {
		return true // of the same identity, but perhaps with other holders
	}
	l.tags, l.key = tags, key
	return true
}

func (l *listener) describeTags(users *users.Names) []metric.Tag {
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
		"exposure", inet.Exposure(s, l.space.ifaces.Addresses).String(),
		"family", s.Family(),
		"netns", l.space.name,
		"owner", l.owner.Status.String(),
		"pod", name.Pod,
		"port", strconv.Itoa(int(s.Port)),
		"process", process,
		"unit", name.Unit,
		"user", users.Name(s.UID),
	)
}

// address returns the address as bound, with the device where there is one.
func (l *listener) address() string {
	address := l.socket.Addr.String()
	if l.socket.Device == 0 {
		return address
	}
	device, ok := l.space.ifaces.Names[l.socket.Device]
	if !ok {
		device = "if" + strconv.Itoa(int(l.socket.Device)) // gone, as ss shows it
	}
	return address + "%" + escape.Name([]byte(device))
}

// seriesKey joins tags into one string that no others make.
func seriesKey(tags []metric.Tag) string {
	var b []byte
	for _, t := range tags {
		b = append(b, t.Key...)
		b = append(b, 0xff) // no byte of UTF-8
		b = append(b, t.Value...)
		b = append(b, 0xff)
	}
	return string(b)
}
