// Package users finds the names of a host's users: in its /etc/passwd, and in systemd's userdb,
// which asks LDAP and other services. It never uses the C library. So its answers are the same
// with and without cgo, and inside a container they are those of the host.
package users

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"strconv"
	"time"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/lookup"
)

const (
	wait  = time.Second // how long Update waits at most, for /etc/passwd and for userdb
	retry = time.Minute // until a source that failed is asked again
)

// Names finds the names of user ids. It must be used by one goroutine at a time.
type Names struct {
	files files
	// A user may have 65,536 subordinate uids. They are looked up separately, so that they
	// do not delay the names of users.
	users, subordinate             *lookup.Cache[uint32]
	absentUsers, absentSubordinate map[uint32]bool // uids that are not in /etc/passwd
	pending                        map[uint32]bool // the results of Pending
}

// New returns the names of a host's users. None is known yet. again is how often all of them
// are looked up again.
func New(h host.Host, again time.Duration) *Names {
	options := lookup.Options{
		Workers: 4, Timeout: 10 * time.Second, Wait: wait, Again: again, Retry: min(retry, again),
	}
	n := &Names{
		files:       files{read: func(uids map[uint32]bool) tables { return readTables(h, uids) }, again: again},
		users:       lookup.New(userdb{h}.name, options),
		absentUsers: make(map[uint32]bool), absentSubordinate: make(map[uint32]bool),
		pending: make(map[uint32]bool),
	}
	options.Workers, options.Wait = 1, wait/20
	n.subordinate = lookup.New(userdb{h}.name, options)
	return n
}

// Update looks up the uids whose names are not known, and all of them if they are due again. It
// waits briefly for the sources. The names from a slow source are known at a later call. While
// a source fails, its names stay known. Update reports whether a result of Name, Pending or Person
// may have changed since the last call.
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
	changed = n.subordinate.Update(ctx, n.absentSubordinate, now) || changed
	return n.updatePending(uids) || changed
}

// Name returns the escaped name of a user, or the uid if no name is known.
func (n *Names) Name(uid uint32) string {
	if name := n.known(uid); name != "" {
		return name
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// Pending reports whether Name was a number at the last Update because a source had not
// answered, or had failed. A host without userdb or /etc/passwd has no names there.
func (n *Names) Pending(uid uint32) bool {
	pending, updated := n.pending[uid]
	return pending || !updated
}

// updatePending updates the results of Pending, and reports whether any has changed.
func (n *Names) updatePending(uids map[uint32]bool) (changed bool) {
	maps.DeleteFunc(n.pending, func(uid uint32, _ bool) bool { return !uids[uid] })
	for uid := range uids {
		var err error
		switch {
		case n.known(uid) != "":
		case n.absentUsers[uid]:
			err = n.users.Err(uid)
		default:
			err = n.subordinate.Err(uid)
		}
		failed := err != nil && !errors.Is(err, fs.ErrNotExist)
		pending := n.known(uid) == "" && (failed || !n.files.looked[uid])
		before, updated := n.pending[uid]
		changed = changed || updated && pending != before
		n.pending[uid] = pending
	}
	return changed
}

// Person returns the user that a uid counts as: the one with its name or, if it has no name,
// the one who may use it as a subordinate uid. For all other uids without a name it returns
// "".
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

// Err returns why /etc/passwd or /etc/subuid could not be read the last time, or nil. It is an
// error if /etc/passwd does not exist, but not if /etc/subuid does not.
func (n *Names) Err() error { return n.files.err }

// Close stops all lookups.
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
