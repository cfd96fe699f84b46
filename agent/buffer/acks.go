package buffer

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
)

// acks keeps the position up to which everything is delivered, in two slots that
// are written in turn, each in a page of its own. A slot that a crash tears
// leaves the other, which is older: then records are sent again, none is lost.
//
// A slot, little-endian: magic 4, version 4, sequence of the first record that
// is not acked 8, CRC-32C of these 4.
type acks struct {
	f    file   // nil: there is none yet
	last uint64 // the highest position written
	slot int64  // where the next goes: never over the highest
}

const (
	acksName = "acks.v1"
	slotSize = 20
	slotPage = 4096
	slots    = 2
)

// openAcks reads the position, and makes the file unless it exists. If the disk is
// too full for that, the first write tries again. damaged says that no slot of a
// file that had one holds.
func openAcks(d folder) (a *acks, damaged bool, err error) {
	a = &acks{}
	a.f, err = d.edit(acksName)
	if errors.Is(err, fs.ErrNotExist) {
		if err = a.create(d); isFull(err) {
			err = nil
		}
		return a, false, err
	}
	if err != nil {
		return nil, false, err
	}
	a.last, a.slot, damaged = readSlots(a.f)
	return a, damaged, nil
}

// readSlots returns the highest position and the slot that may be overwritten.
func readSlots(f io.ReaderAt) (last uint64, free int64, damaged bool) {
	damaged = true
	for i := range int64(slots) {
		var b [slotSize]byte
		if err := readAt(f, b[:], i*slotPage); err != nil {
			continue // unreadable is as good as damaged
		}
		position, ok := parseSlot(b[:])
		if ok && position >= last {
			last, free = position, (i+1)%slots
		}
		if ok || b == [slotSize]byte{} { // zeros: never written
			damaged = false
		}
	}
	return last, free, damaged
}

// create makes the file with its pages, so that later writes need no space.
func (a *acks) create(d folder) error {
	f, err := d.create(acksName)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, slots*slotPage), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		return errors.Join(err, f.Close(), d.remove(acksName))
	}
	a.f = f
	return nil
}

// write notes a position that is beyond the last. It survives a kill; sync makes
// it survive a loss of power too.
func (a *acks) write(d folder, position uint64) error {
	return withReserve(d, func() error {
		if err := a.ensure(d); err != nil {
			return err
		}
		if _, err := a.f.WriteAt(appendSlot(nil, position), a.slot*slotPage); err != nil {
			return err
		}
		a.last, a.slot = position, (a.slot+1)%slots
		return nil
	})
}

// ensure makes the file again if somebody removed or replaced it.
func (a *acks) ensure(d folder) error {
	if a.f != nil {
		if d.names(acksName, a.f) {
			return nil
		}
		a.f.Close() // nobody reads it again
		a.f = nil
	}
	err := a.create(d)
	if errors.Is(err, fs.ErrExist) {
		if err = d.setAside(acksName); err == nil {
			err = a.create(d)
		}
	}
	return err
}

// sync makes the last position durable. After an error it is written again, to
// the same slot, since the kernel may have forgotten that the page is not on disk.
func (a *acks) sync(d folder) error {
	if a.f == nil {
		return nil
	}
	err := withReserve(d, a.f.Sync)
	if err != nil {
		a.slot = (a.slot + 1) % slots
		a.last = 0
	}
	return err
}

func (a *acks) close() error {
	if a.f == nil {
		return nil
	}
	return a.f.Close()
}

func appendSlot(dst []byte, position uint64) []byte {
	start := len(dst)
	dst = append(dst, "\xf5ack"...)
	dst = binary.LittleEndian.AppendUint32(dst, formatVersion)
	dst = binary.LittleEndian.AppendUint64(dst, position)
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[start:]))
}

func parseSlot(b []byte) (position uint64, ok bool) {
	if len(b) < slotSize || string(b[:4]) != "\xf5ack" ||
		binary.LittleEndian.Uint32(b[4:]) != formatVersion ||
		binary.LittleEndian.Uint32(b[16:]) != checksum(b[:16]) {
		return 0, false
	}
	position = binary.LittleEndian.Uint64(b[8:])
	return position, position <= maxSequence
}

// readAt fills b from off on, with zeros beyond the end of the file.
func readAt(f io.ReaderAt, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	clear(b[n:])
	if err == io.EOF {
		err = nil
	}
	return err
}
