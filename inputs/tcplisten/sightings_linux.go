package tcplisten

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
)

// sightings knows when each identity was first seen. It remembers one that is gone
// for one gather more, since a service may be restarting, and writes what it knows
// to the state directory where there is one.
type sightings struct {
	path    string // of the file; "" where there is none
	known   map[string]*sighting
	round   uint64     // of update
	absent  int        // of those known: not there in the last round
	unsaved bool       // something has changed since it was written
	saved   time.Time  // or tried to
	writing chan error // of the write under way; nil: there is none
	write   func(path string, text []byte) error
}

type sighting struct {
	since  int64  // Unix time; 0: it stood at the first gather
	round  uint64 // the last in which it was there; 0: only an earlier run, or input, saw it
	absent bool   // in the last round
}

// The file of sightings is JSON of this form.
type sightingsFile struct {
	Version   int              `json:"version"`
	FirstSeen map[string]int64 `json:"first_seen"` // Unix time by tags
}

const (
	sightingsVersion = 1
	saveEvery        = time.Minute
)

// openSightings reads what an earlier run knew. Its error says why that is not
// used; the sightings are ready all the same.
func openSightings(stateDir, name string) (*sightings, error) {
	s := &sightings{path: sightingsPath(stateDir, name), write: writeFile, known: make(map[string]*sighting)}
	if s.path == "" {
		return s, nil
	}
	file, err := os.OpenFile(s.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	defer file.Close()
	var f sightingsFile
	if err := json.NewDecoder(file).Decode(&f); err != nil {
		return s, fmt.Errorf("read %s: %w", s.path, err)
	}
	if f.Version != sightingsVersion {
		return s, fmt.Errorf("read %s: version %d, expected %d", s.path, f.Version, sightingsVersion)
	}
	for key, since := range f.FirstSeen {
		s.known[key] = &sighting{since: since}
	}
	return s, nil
}

// passOn returns what is known, for another input.
func (s *sightings) passOn(stateDir, name string) *sightings {
	next := &sightings{path: sightingsPath(stateDir, name), write: writeFile, known: make(map[string]*sighting), unsaved: true}
	for key, known := range s.known {
		next.known[key] = &sighting{since: known.since}
	}
	return next
}

// sightingsPath returns the path of the file; "" where there is none.
func sightingsPath(stateDir, name string) string {
	if stateDir == "" {
		return ""
	}
	return filepath.Join(stateDir, name+".first_seen.json")
}

// update gives every group the time at which it was first seen. It is called
// when groups have changed, and at the gather after one in which some were absent.
// Where the owners are not complete, one that an earlier run knew may be there
// without its owner yet.
func (s *sightings) update(groups []*group, complete bool) {
	s.round++
	for _, g := range groups {
		known := s.known[g.sighting]
		if known == nil {
			known = &sighting{since: g.members[0].since}
			for _, l := range g.members {
				known.since = min(known.since, l.since)
			}
			s.known[g.sighting] = known
			s.unsaved = s.unsaved || known.since != 0
		}
		known.round, known.absent = s.round, false
		g.since = known.since
	}
	s.absent = 0
	for key, known := range s.known {
		switch {
		case known.round == s.round:
		case known.round == 0 && !complete:
			s.absent++
		case known.absent:
			delete(s.known, key)
			s.unsaved = true
		default:
			known.absent = true
			s.absent++
		}
	}
}

// sightingKey returns what an identity is remembered by: all of it but what may
// change while the listener stays what it is. A user is known by the number: the
// service that has the names may not answer yet.
func sightingKey(uid uint32, tags []metric.Tag) string {
	var b strings.Builder
	fmt.Fprintf(&b, "uid=%d ", uid)
	for _, t := range tags {
		if t.Key != "owner" && t.Key != "exposure" && t.Key != "user" {
			fmt.Fprintf(&b, "%s=%q ", t.Key, t.Value)
		}
	}
	return b.String()
}

// save begins to write what is known where something has changed, now and then, and
// returns how the last write ended: no gather waits for a disk that hangs. The file
// is whole at every instant, and a link that stands in its place is replaced, not
// followed.
func (s *sightings) save(now time.Time) error {
	if s.writing != nil {
		select {
		case err := <-s.writing:
			if s.writing = nil; err != nil {
				s.unsaved = true
				return err
			}
		default:
			return nil
		}
	}
	if s.path == "" || !s.unsaved || now.Sub(s.saved) < saveEvery {
		return nil
	}
	s.saved = now
	f := sightingsFile{Version: sightingsVersion, FirstSeen: make(map[string]int64)}
	for key, known := range s.known {
		if known.since != 0 {
			f.FirstSeen[key] = known.since
		}
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	writing := make(chan error, 1)
	s.unsaved, s.writing = false, writing
	go func() { writing <- s.write(s.path, text) }()
	return nil
}

// close saves what is not saved yet, and waits for it a moment.
func (s *sightings) close() error {
	var errs []error
	for range 2 { // the write under way, and a last one
		s.saved = time.Time{}
		errs = append(errs, s.save(time.Now()))
		if s.writing == nil {
			break
		}
		select {
		case err := <-s.writing:
			s.writing = nil
			errs = append(errs, err)
		case <-time.After(time.Second):
			return fmt.Errorf("write %s: the disk hangs", s.path)
		}
	}
	return errors.Join(errs...)
}

func writeFile(path string, text []byte) error {
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		os.Remove(temporary)
		return err
	}
	return os.Rename(temporary, path)
}
