package netns

import (
	"context"
	"errors"
	"strconv"
	"time"

	"sockwatch/inputs/internal/inet"
)

// A Namespace is one network namespace. It is for one goroutine.
type Namespace struct {
	location *location
	shared   *shared
	root     bool
	gone     bool
	kept     bool // its sockets stay open
	sockets  sockets
	routes   routes
}

func newNamespace(p *location, s *shared) *Namespace {
	n := &Namespace{location: p, shared: s}
	n.sockets = sockets{location: p, backend: s.options.Backend}
	n.routes = routes{location: p, backend: s.options.Backend, refresh: s.options.Refresh}
	return n
}

// Host reports whether it is the host's.
func (n *Namespace) Host() bool { return n.root }

// Inode returns its number; 0 if that is hidden.
func (n *Namespace) Inode() uint64 { return n.location.number }

// Name returns what tells it from the others: "" of the host's, its name under
// /run/netns, escaped, or else its number. If that is hidden it is the inode of its
// net/tcp, which no namespace has as its number.
func (n *Namespace) Name() string {
	switch {
	case n.root:
		return ""
	case n.location.name != "":
		return n.location.name
	case n.location.number != 0:
		return strconv.FormatUint(n.location.number, 10)
	default:
		return strconv.FormatUint(n.location.table, 10)
	}
}

// Gone reports whether it has ended, or cannot be reached any more.
func (n *Namespace) Gone() bool { return n.gone }

// release closes what is kept open.
func (n *Namespace) release() {
	n.sockets.close()
	n.routes.close()
	n.location.pinned = false
	if n.kept && !n.location.own {
		n.shared.free++
	}
	n.kept = false
}

// keep reports whether sockets of the namespace may stay open.
func (n *Namespace) keep() bool {
	if !n.kept && !n.location.own {
		if n.shared.free <= 0 {
			return false
		}
		n.shared.free--
	}
	n.kept = true
	return true
}

// Dump calls visit for all TCP sockets in a state, IPv4 before IPv6. The Socket is
// valid during the call only. A listing that was disturbed is done again, hence begin:
// it is called before every attempt, to forget what the last one found. A socket that
// moved meanwhile may come twice.
//
// The kernel lists sockets in pieces, and passes over one if another of its hash bucket
// is closed between two pieces. Dumps of a different pass, from 0 on, are cut into
// pieces at other places, and so miss others.
//
// Other namespaces than the host's get a part of the time that is left, so that none
// of them takes the time of all. If the namespace has ended the error says so, and
// Gone is true.
func (n *Namespace) Dump(ctx context.Context, state State, pass int, begin func(), visit func(*inet.Socket)) (Source, error) {
	ctx, cancel := n.share(ctx)
	defer cancel()
	l := listing{state: state, pass: pass, begin: begin, visit: visit}
	source, err := n.sockets.list(ctx, l)
	for tries := 0; tries < 3 && n.findAgain(err); tries++ {
		source, err = n.sockets.list(ctx, l)
	}
	n.note(err)
	return source, err
}

// Local returns what the namespace answers to. It is the same pointer as long as
// nothing has changed. With an error the last one stays what is known.
func (n *Namespace) Local(ctx context.Context) (*Local, error) {
	ctx, cancel := n.share(ctx)
	defer cancel()
	n.routes.keep = n.kept || n.location.own || n.shared.free > 0
	l, err := n.routes.local(ctx, time.Now())
	for tries := 0; tries < 3 && n.findAgain(err); tries++ {
		l, err = n.routes.local(ctx, time.Now())
	}
	n.note(err)
	return l, err
}

// share returns a context for one namespace.
func (n *Namespace) share(ctx context.Context) (context.Context, context.CancelFunc) {
	if n.root {
		return context.WithCancel(ctx)
	}
	most := time.Second
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(deadline)/4)
	}
	return context.WithTimeout(ctx, most)
}

// findAgain looks for another process after an error which says that the one by which
// the namespace was found has ended or moved.
func (n *Namespace) findAgain(err error) bool {
	if !errors.Is(err, errEnded) && !errors.Is(err, errMoved) || n.shared.find == nil || n.root {
		return false
	}
	return n.shared.find(n.location)
}

// note notes that a namespace has ended, and whether sockets are kept in it.
func (n *Namespace) note(err error) {
	if !n.root && (errors.Is(err, errEnded) || errors.Is(err, errMoved)) {
		n.gone = true
	}
	if n.location.own {
		return
	}
	if n.sockets.isOpen() || n.routes.isOpen() {
		if n.keep() {
			n.location.pinned = true
		} else {
			n.release()
		}
	}
}
