package buffer

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
)

// acks saves the position up to which all records are delivered. It has two slots on
// separate pages, written in turn. If a crash tears one, the other is older: records
// are sent again, but none is lost.
//
// Layout of a slot, little-endian: magic (4 bytes), version (4), sequence number of the
// first record that is not acked (8), CRC-32C of the preceding bytes (4).
type acks struct {
	f    file   // nil: not created yet
	last uint64 // the highest position written
	slot int64  // the slot to write next, never the one with the highest position
}

const (
	acksName = "acks.v1"
	slotSize = 20
	slotPage = 4096
	slots    = 2
)

// openAcks reads the position. It creates the file if it does not exist; if the disk is
// full, the first write tries again. damaged: the file has been written, and no slot is
// valid.
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
			continue // unreadable counts as damaged
		}
		position, ok := parseSlot(b[:])
		if ok && position >= last {
			last, free = position, (i+1)%slots
		}
		if ok || b == [slotSize]byte{} { // all zeros: never written
			damaged = false
		}
	}
	return last, free, damaged
}

// create creates the file with both pages, so that later writes need no space.
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

// write saves a position higher than the last. It survives a kill; after sync it also
// survives a power failure.
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

// ensure creates the file again if it was removed or replaced.
func (a *acks) ensure(d folder) error {
	if a.f != nil {
		if d.names(acksName, a.f) {
			return nil
		}
		a.f.Close() // its content is no longer needed
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

// sync makes the last position durable. After an error the position is written again,
// to the same slot: the kernel may have marked the page clean although it is not on disk.
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

// readAt fills b from off on. Beyond the end of the file it fills zeros.
func readAt(f io.ReaderAt, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	clear(b[n:])
	if err == io.EOF {
		err = nil
	}
	return err
}
