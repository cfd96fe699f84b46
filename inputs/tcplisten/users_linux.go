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
		names: lookups[uint32]{lookup: lookupUser, patience: time.Second, again: again},
		uids:  make(map[uint32]bool),
	}
}

// lookUp looks the users of listeners up that are not known.
func (u *users) lookUp(listeners []*listener, now time.Time) {
	clear(u.uids)
	for i, l := range listeners {
		if i == 0 || l.socket.UID != listeners[i-1].socket.UID {
			u.uids[l.socket.UID] = true
		}
	}
	if u.names.want(u.uids, now) {
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

// lookupUser returns the name of a user id. It does not wait longer than ctx for a
// service, though the call of the C library does.
func lookupUser(ctx context.Context, uid uint32) (string, error) {
	type answer struct {
		name string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		found, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
		switch unknown := user.UnknownUserIdError(0); {
		case err == nil:
			answered <- answer{name: escape.Name([]byte(found.Username))}
		case errors.As(err, &unknown):
			answered <- answer{}
		default:
			answered <- answer{err: err}
		}
	}()
	select {
	case a := <-answered:
		return a.name, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
