package netns

import (
	"context"
	"errors"
	"strconv"
	"time"

	"sockwatch/inputs/internal/inet"
)

// A Namespace is one network namespace. It must be used by one goroutine.
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
	n.sockets = sockets{location: p, backend: s.options.Backend, buf: s.buf}
	n.routes = routes{location: p, backend: s.options.Backend, refresh: s.options.Refresh}
	return n
}

// Ended returns a namespace that has ended before it was found: nothing but its number is known.
func Ended(number uint64) *Namespace {
	return &Namespace{location: &location{number: number}, gone: true}
}

// Host reports whether this is the host's namespace.
func (n *Namespace) Host() bool { return n.root }

// Inode returns the number of the namespace, or 0 if that is hidden.
func (n *Namespace) Inode() uint64 { return n.location.number }

// Name returns a name that is unique in the set: "" for the host's namespace, else the
// escaped name under /run/netns, or the number. If the number is hidden, Name returns the
// inode of net/tcp, which is never the number of a namespace.
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

// Gone reports whether the namespace has ended or can no longer be reached.
func (n *Namespace) Gone() bool { return n.gone }

// release closes the sockets that are kept open.
func (n *Namespace) release() {
	n.sockets.close()
	n.routes.close()
	n.location.pinned = false
	if n.kept && !n.location.own {
		n.shared.free++
	}
	n.kept = false
}

// keep reports whether sockets in the namespace may stay open. If so, the namespace counts
// against shared.free.
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

// Dump calls visit for every TCP socket in a state, IPv4 before IPv6. The Socket is valid
// only during the call. If a dump is interrupted, it is repeated: begin is called before
// every attempt, to discard what the last one found. A socket that moved meanwhile may be
// visited twice.
//
// The kernel lists sockets in pieces. If one is closed between two pieces, another in the
// same hash bucket may be skipped. Dumps with a different pass, which counts from 0, are
// cut into pieces at other places, so they skip others.
//
// Every namespace except the host's gets only part of the time that is left, so that none
// of them uses up the time of all. If the namespace has ended, Dump returns an error and
// Gone returns true.
func (n *Namespace) Dump(ctx context.Context, state State, pass int, begin func(), visit func(*inet.Socket)) (Source, error) {
	ctx, cancel := n.share(ctx)
	defer cancel()
	l := listing{state: state, pass: pass, begin: begin, visit: visit}
	source, err := n.sockets.list(ctx, l)
	for tries := 0; tries < 3 && n.findAgain(err); tries++ {
		source, err = n.sockets.list(ctx, l)
	}
	n.finish(err)
	return source, err
}

// Local returns the addresses that the namespace answers on. It returns the same pointer
// for as long as nothing has changed. After an error the last Local stays valid.
func (n *Namespace) Local(ctx context.Context) (*Local, error) {
	ctx, cancel := n.share(ctx)
	defer cancel()
	n.routes.keep = n.kept || n.location.own || n.shared.free > 0
	l, err := n.routes.local(ctx, time.Now())
	for tries := 0; tries < 3 && n.findAgain(err); tries++ {
		l, err = n.routes.local(ctx, time.Now())
	}
	n.finish(err)
	return l, err
}

// share returns a context with the time that one namespace gets.
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

// findAgain looks for another process in the namespace, if the error says that the known
// one has ended or moved.
func (n *Namespace) findAgain(err error) bool {
	if !errors.Is(err, errEnded) && !errors.Is(err, errMoved) || n.shared.find == nil || n.root {
		return false
	}
	return n.shared.find(n.location)
}

// finish ends a read. It records whether the namespace is gone, and whether its sockets
// stay open.
func (n *Namespace) finish(err error) {
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
