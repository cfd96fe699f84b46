package tcplisten

import (
	"context"
	"errors"
	"os/user"
	"strconv"
	"time"

	"sockwatch/inputs/internal/escape"
)

// users knows the names of user ids. They are asked of a service where the host
// has its users from one (NSS), which may hang.
type users struct {
	names   lookups[uint32]
	uids    map[uint32]bool // those wanted
	version uint32          // changes when a name does
}

func newUsers(again time.Duration) users {
	return users{
		names: lookups[uint32]{lookup: limitedTo(8, lookupUser), patience: time.Second, again: again},
		uids:  make(map[uint32]bool),
	}
}

// lookUp looks the users of listeners up that are not known.
func (u *users) lookUp(ctx context.Context, listeners []*listener, now time.Time) {
	clear(u.uids)
	for i, l := range listeners {
		if i == 0 || l.socket.UID != listeners[i-1].socket.UID {
			u.uids[l.socket.UID] = true
		}
	}
	if u.names.want(ctx, u.uids, now) {
		u.version++
	}
}

// name returns the user's name, or the number of one whose name is not known.
func (u *users) name(uid uint32) string {
	if name := u.names.of(uid); name != "" {
		return name
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// lookupUser returns the name of a user id, "" where it has none.
func lookupUser(uid uint32) (string, error) {
	found, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if unknown := user.UnknownUserIdError(0); errors.As(err, &unknown) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return escape.Name([]byte(found.Username)), nil
}

// limitedTo returns a lookup that does not wait longer than its ctx, though a call
// of the C library does. Each that hangs keeps a thread of the program: there are at
// most so many of them.
func limitedTo(calls int, lookup func(uint32) (string, error)) func(context.Context, uint32) (string, error) {
	type answer struct {
		name string
		err  error
	}
	free := make(chan struct{}, calls)
	return func(ctx context.Context, uid uint32) (string, error) {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		answered := make(chan answer, 1)
		go func() {
			defer func() { <-free }()
			name, err := lookup(uid)
			answered <- answer{name, err}
		}()
		select {
		case a := <-answered:
			return a.name, a.err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
