// Package users knows the names of a host's users: those in its /etc/passwd, and those
// that systemd's userdb knows, which asks LDAP and other services. It never asks the C
// library, so its answers are the same with and without cgo, and inside a container
// they are those of the host.
package users

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/lookup"
)

const (
	wait  = time.Second // longest time that Update waits for /etc/passwd, and for userdb
	retry = time.Minute // until a source that failed is asked again
)

// Names knows the names of user ids. Its methods are called by one goroutine at a
// time.
type Names struct {
	files files
	// A user may have 65,536 subordinate uids. They are looked up apart from the uids of
	// users, whose names they must not delay.
	users, subordinate             *lookup.Cache[uint32]
	absentUsers, absentSubordinate map[uint32]bool // the uids that are not in /etc/passwd
}

// New returns the names of a host's users, none of them known yet. All are looked up
// again after some time.
func New(h host.Host, again time.Duration) *Names {
	options := lookup.Options{
		Workers: 4, Timeout: 10 * time.Second, Wait: wait, Again: again, Retry: min(retry, again),
	}
	n := &Names{
		files:       files{read: func(uids map[uint32]bool) tables { return readTables(h, uids) }, again: again},
		users:       lookup.New(userdb{h}.name, options),
		absentUsers: make(map[uint32]bool), absentSubordinate: make(map[uint32]bool),
	}
	options.Workers, options.Wait = 1, wait/20
	n.subordinate = lookup.New(userdb{h}.name, options)
	return n
}

// Update looks up the uids whose names are not known, and all of them if they are due
// again. It waits a moment for sources that answer at once; what the others know is
// there at a later call. It reports whether a name or a person has changed since the
// last call. Names stay known while their source fails.
func (n *Names) Update(ctx context.Context, uids map[uint32]bool, now time.Time) (changed bool) {
	changed = n.files.update(ctx, uids, now)
	clear(n.absentUsers)
	clear(n.absentSubordinate)
	for uid := range uids {
		if n.files.names[uid] != "" {
			continue
		}
		r := n.files.rangeOf(uid)
		if r == nil {
			n.absentUsers[uid] = true
			continue
		}
		n.absentSubordinate[uid] = true
		if r.name == "" && n.files.names[r.uid] == "" {
			n.absentUsers[r.uid] = true
		}
	}
	changed = n.users.Update(ctx, n.absentUsers, now) || changed
	return n.subordinate.Update(ctx, n.absentSubordinate, now) || changed
}

// Name returns the escaped name of a user, or its number if no name is known.
func (n *Names) Name(uid uint32) string {
	if name := n.known(uid); name != "" {
		return name
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// Pending reports whether Name is a number because a source has not answered yet, or has
// failed.
func (n *Names) Pending(uid uint32) bool {
	switch {
	case n.known(uid) != "":
		return false
	case n.absentUsers[uid]:
		return !n.users.Answered(uid)
	case n.absentSubordinate[uid]:
		return !n.subordinate.Answered(uid)
	default:
		return true
	}
}

// Person returns whom a uid counts to: the user of that name, or if it has none the
// user who may use it as a subordinate uid. All other uids without a name count as
// one: "".
func (n *Names) Person(uid uint32) string {
	if name := n.known(uid); name != "" {
		return name
	}
	switch r := n.files.rangeOf(uid); {
	case r == nil:
		return ""
	case r.name != "":
		return r.name
	default:
		return n.known(r.uid)
	}
}

// Err returns why /etc/passwd or /etc/subuid could not be read the last time; nil if
// they could. A file that does not exist is an error only in the case of /etc/passwd.
func (n *Names) Err() error { return n.files.err }

// Close stops what still runs.
func (n *Names) Close() {
	n.files.close()
	n.users.Close()
	n.subordinate.Close()
}

// known returns the name of a uid, or "".
func (n *Names) known(uid uint32) string {
	if name := n.files.names[uid]; name != "" {
		return name
	}
	return cmp.Or(n.users.Name(uid), n.subordinate.Name(uid))
}
