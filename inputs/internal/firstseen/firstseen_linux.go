// Package firstseen remembers when each of a set of identities was first seen,
// across gathers, restarts of what is observed, and runs of the program.
package firstseen

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A Store knows when each identity was first seen. It remembers one that is missing
// for one pass more, since a service may be restarting, and writes what it knows to
// the state directory if there is one. It is for one goroutine.
type Store struct {
	path    string // of the file; "": there is none
	known   map[string]*entry
	pass    uint64
	missing int        // how many of known were missing in the last pass
	unsaved bool       // something has changed since it was written
	saved   time.Time  // when that was tried last
	writing chan error // of the write under way; nil: there is none
	write   func(path string, text []byte) error
}

type entry struct {
	since   int64  // Unix time; 0: it was there from the beginning
	pass    uint64 // the last that had it; 0: only an earlier run, or store, had
	missing bool   // in the last pass
}

// A content is what the file holds, as JSON.
type content struct {
	Version   int              `json:"version"`
	FirstSeen map[string]int64 `json:"first_seen"` // Unix time by tags
}

const (
	fileVersion = 1
	saveEvery   = time.Minute
)

// Open reads what an earlier run knew. Its error says why that is not
// used; the store is ready all the same.
func Open(stateDir, name string) (*Store, error) {
	s := &Store{path: filePath(stateDir, name), write: writeFile, known: make(map[string]*entry)}
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
	var f content
	if err := json.NewDecoder(file).Decode(&f); err != nil {
		return s, fmt.Errorf("read %s: %w", s.path, err)
	}
	if f.Version != fileVersion {
		return s, fmt.Errorf("read %s: version %d, expected %d", s.path, f.Version, fileVersion)
	}
	for key, since := range f.FirstSeen {
		s.known[key] = &entry{since: since}
	}
	return s, nil
}

// Inherit returns a store that knows the same and is saved elsewhere.
func (s *Store) Inherit(stateDir, name string) *Store {
	next := &Store{path: filePath(stateDir, name), write: writeFile, known: make(map[string]*entry), unsaved: true}
	for key, known := range s.known {
		next.known[key] = &entry{since: known.since}
	}
	return next
}

// filePath returns the path of the file; "" without a state directory.
func filePath(stateDir, name string) string {
	if stateDir == "" {
		return ""
	}
	return filepath.Join(stateDir, name+".first_seen.json")
}

// Begin begins a pass over all identities that there are.
func (s *Store) Begin() { s.pass++ }

// Seen notes that an identity is there, and returns when it was first seen: at
// since, in Unix time, if it is new; 0: it was there from the beginning.
func (s *Store) Seen(key string, since int64) int64 {
	e := s.known[key]
	if e == nil {
		e = &entry{since: since}
		s.known[key] = e
		s.unsaved = s.unsaved || since != 0
	}
	e.pass, e.missing = s.pass, false
	return e.since
}

// End ends a pass and forgets what was missing twice. If it was incomplete, an
// identity that only an earlier run or store had is kept: it may be there under a name
// that is not known in full yet.
func (s *Store) End(incomplete bool) {
	s.missing = 0
	for key, e := range s.known {
		switch {
		case e.pass == s.pass:
		case e.pass == 0 && incomplete:
			s.missing++
		case e.missing:
			delete(s.known, key)
			s.unsaved = true
		default:
			e.missing = true
			s.missing++
		}
	}
}

// Missing reports whether something was missing in the last pass: then the next one
// is due though nothing has changed.
func (s *Store) Missing() bool { return s.missing > 0 }

// Len returns how many identities are remembered.
func (s *Store) Len() int { return len(s.known) }

// Save begins to write what is known if something has changed, once a minute at
// most, and returns how the last write ended: no gather waits for a disk that hangs.
// The file is whole at every instant, and a link in its place is replaced, not
// followed.
func (s *Store) Save(now time.Time) error {
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
	f := content{Version: fileVersion, FirstSeen: make(map[string]int64)}
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

// Close saves what is not saved yet, and waits a moment for that.
func (s *Store) Close() error {
	var errs []error
	for range 2 { // the write under way, and a last one
		s.saved = time.Time{}
		errs = append(errs, s.Save(time.Now()))
		if s.writing == nil {
			break
		}
		select {
		case err := <-s.writing:
			s.writing = nil
			errs = append(errs, err)
		case <-time.After(time.Second):
			return fmt.Errorf("write %s: the disk is not responding", s.path)
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
