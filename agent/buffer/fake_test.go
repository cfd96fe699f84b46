package buffer

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
)

// A fakeFolder is a folder in memory that can fail at any operation and lose power,
// and counts its operations.
type fakeFolder struct {
	mu      sync.Mutex
	files   map[string]*fakeFile
	durable map[string]*fakeFile // the names as of the last sync
	// atPath is the directory that the path refers to now, if it is another one; removed:
	// the path does not exist any more.
	atPath  map[string]*fakeFile
	removed bool

	// before, unlocked, is called before every read and sync.
	before func()
	// fault is called before every operation; its error is the result. For a write that
	// fails, written is how many bytes were written anyway.
	fault   func(op, name string) error
	written func(n int) int

	ops   map[string]int
	bytes int64 // read
}

type fakeFile struct {
	special      bool // not a regular file
	data, synced []byte
	// A kernel forgets that pages are dirty when their sync fails: the bytes between
	// these are not synced by a later one.
	forgotFrom, forgotTo int
}

// A fakeHandle is an open fakeFile.
type fakeHandle struct {
	d        *fakeFolder
	f        *fakeFile
	name     string
	readOnly bool
}

func newFakeFolder() *fakeFolder {
	return &fakeFolder{files: map[string]*fakeFile{}, durable: map[string]*fakeFile{}, ops: map[string]int{}}
}

// killed returns the folder as the next process finds it.
func (d *fakeFolder) killed() *fakeFolder {
	k := newFakeFolder()
	k.files, k.durable = d.files, d.durable
	if d.atPath != nil {
		k.files, k.durable = d.atPath, map[string]*fakeFile{}
	}
	return k
}

// powerLost returns a folder as a power failure may leave it: synced data is there; of the
// rest, all, some or none.
func (d *fakeFolder) powerLost(rng *rand.Rand) *fakeFolder {
	p := newFakeFolder()
	for _, m := range []map[string]*fakeFile{d.files, d.durable} {
		for name, f := range m {
			if _, ok := p.files[name]; ok || d.durable[name] != f && rng.IntN(2) == 0 {
				continue
			}
			data := slices.Clone(f.synced)
			switch rng.IntN(3) {
			case 0:
				data = slices.Clone(f.data)
			case 1: // a part of what was appended
				if n := len(f.data) - len(f.synced); n > 0 {
					data = append(data, f.data[len(f.synced):len(f.synced)+rng.IntN(n+1)]...)
				}
			}
			p.files[name] = &fakeFile{data: data, synced: slices.Clone(data)}
			p.durable[name] = p.files[name]
		}
	}
	return p
}

// do counts an operation and returns its error.
func (d *fakeFolder) do(op, name string) error {
	d.ops[op]++
	if d.fault == nil {
		return nil
	}
	if err := d.fault(op, name); err != nil {
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (d *fakeFolder) list() (entries []entry, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("list", "."); err != nil {
		return nil, err
	}
	for name, f := range d.files {
		entries = append(entries, entry{name, int64(len(f.data)), !f.special})
	}
	return entries, nil
}

func (d *fakeFolder) open(name string) (file, error) { return d.openFile("open", name, true) }
func (d *fakeFolder) edit(name string) (file, error) { return d.openFile("edit", name, false) }

func (d *fakeFolder) openFile(op, name string, readOnly bool) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do(op, name); err != nil {
		return nil, err
	}
	f, ok := d.files[name]
	if !ok {
		return nil, &os.PathError{Op: op, Path: name, Err: syscall.ENOENT}
	}
	if f.special {
		return nil, notRegular(name)
	}
	return &fakeHandle{d, f, name, readOnly}, nil
}

func (d *fakeFolder) create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return nil, &os.PathError{Op: "create", Path: name, Err: syscall.ENOENT}
	}
	if _, ok := d.files[name]; ok {
		return nil, &os.PathError{Op: "create", Path: name, Err: syscall.EEXIST}
	}
	if err := d.do("create", name); err != nil {
		return nil, err
	}
	f := &fakeFile{}
	d.files[name] = f
	return &fakeHandle{d, f, name, false}, nil
}

func (d *fakeFolder) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.files[name]; !ok {
		return &os.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	if err := d.do("remove", name); err != nil {
		return err
	}
	delete(d.files, name)
	return nil
}

func (d *fakeFolder) setAside(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("rename", name); err != nil {
		return err
	}
	aside, err := asideName(name, func(name string) bool { return d.files[name] != nil })
	if err != nil {
		return err
	}
	d.files[aside] = d.files[name]
	delete(d.files, name)
	return nil
}

func (d *fakeFolder) names(name string, f file) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.atPath != nil {
		return d.atPath[name] == f.(*fakeHandle).f
	}
	return d.files[name] == f.(*fakeHandle).f
}

func (d *fakeFolder) renew() (folder, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.atPath != nil {
		d.files, d.durable, d.atPath, d.removed = d.atPath, map[string]*fakeFile{}, nil, false
	}
	return d, nil
}

// replaceDirectory creates an empty directory in its place, and removes it or moves it
// elsewhere.
func (d *fakeFolder) replaceDirectory(remove bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.atPath, d.removed = map[string]*fakeFile{}, remove
	if remove {
		d.files = map[string]*fakeFile{}
	}
}

func (d *fakeFolder) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("syncdir", "."); err != nil {
		return err
	}
	d.durable = map[string]*fakeFile{}
	for name, f := range d.files {
		d.durable[name] = f
	}
	return nil
}

func (d *fakeFolder) close() error { return nil }

func (h *fakeHandle) ReadAt(b []byte, off int64) (int, error) {
	if h.d.before != nil {
		h.d.before()
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.bytes += int64(len(b))
	if err := h.d.do("read", h.name); err != nil {
		return 0, err
	}
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *fakeHandle) WriteAt(b []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.readOnly {
		return 0, fs.ErrPermission
	}
	err := h.d.do("write", h.name)
	if err != nil {
		b = b[:h.d.written(len(b))]
	}
	if int(off) <= h.f.forgotFrom {
		h.f.forgotFrom = max(h.f.forgotFrom, min(h.f.forgotTo, int(off)+len(b)))
	}
	if gap := off + int64(len(b)) - int64(len(h.f.data)); gap > 0 {
		h.f.data = append(h.f.data, make([]byte, gap)...)
	}
	return copy(h.f.data[off:], b), err
}

func (h *fakeHandle) Truncate(size int64) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.d.do("truncate", h.name); err != nil {
		return err
	}
	if size > int64(len(h.f.data)) {
		return fmt.Errorf("truncate grows %q", h.name)
	}
	h.f.data = h.f.data[:size:size]
	return nil
}

func (h *fakeHandle) Sync() error {
	if h.d.before != nil {
		h.d.before()
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	f := h.f
	if err := h.d.do("sync", h.name); err != nil {
		f.forgotFrom, f.forgotTo = len(f.synced), len(f.data)
		return err
	}
	f.synced = slices.Clone(f.data)
	if f.forgotFrom < len(f.data) {
		clear(f.synced[f.forgotFrom:min(f.forgotTo, len(f.data))])
	}
	return nil
}

func (h *fakeHandle) Close() error { return nil }
