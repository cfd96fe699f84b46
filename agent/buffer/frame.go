package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A frame is one block on disk: a header and the payload, little-endian:
//
//	 0  magic, 4 bytes    16  sequence of the first record, 8
//	 4  version, 4        24  time of the append, Unix nanoseconds, 8
//	 8  payload bytes, 4  32  records, 4
//	12  the same before   36  CRC-32C of the payload, 4
//	    compression, 4    40  CRC-32C of the 40 bytes before, 4
//	44  payload: each record after its length (uvarint), all of it zstd
//
// A header that holds is believed without its payload: so segments are surveyed
// by headers alone, and the records of a damaged payload are still counted.
const (
	magic         = "\xf5swq" // a byte that UTF-8 never has keeps it out of records
	formatVersion = 1
	headerSize    = 44

	// maxRaw bounds a block before compression, and what a reader allocates for one.
	maxRaw = 256 << 20
	// keepBuffer bounds what is kept for use again: a larger block is an exception.
	keepBuffer = 2 << 20
	// maxSequence leaves room to add without overflow.
	maxSequence = 1 << 62
)

type header struct {
	payload int // bytes
	raw     int // bytes before compression
	first   uint64
	time    time.Time
	count   int
	sum     uint32 // of the payload
}

// size is that of the whole frame.
func (h *header) size() int64 { return headerSize + int64(h.payload) }

// end is the sequence after the last record's.
func (h *header) end() uint64 { return h.first + uint64(h.count) }

func appendHeader(dst []byte, h *header) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint32(dst, formatVersion)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.payload))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.raw))
	dst = binary.LittleEndian.AppendUint64(dst, h.first)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.time.UnixNano()))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.count))
	dst = binary.LittleEndian.AppendUint32(dst, h.sum)
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[start:]))
}

// parseHeader reads the header that b begins with; false: there is none that
// holds.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || string(b[:4]) != magic ||
		binary.LittleEndian.Uint32(b[4:]) != formatVersion ||
		binary.LittleEndian.Uint32(b[40:]) != checksum(b[:40]) {
		return header{}, false
	}
	payload, raw := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	first, count := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint32(b[32:])
	if payload > 2*maxRaw || raw > maxRaw || first > maxSequence || count == 0 || count > raw {
		return header{}, false
	}
	return header{
		payload: int(payload),
		raw:     int(raw),
		first:   first,
		time:    time.Unix(0, int64(binary.LittleEndian.Uint64(b[24:]))),
		count:   int(count),
		sum:     binary.LittleEndian.Uint32(b[36:]),
	}, true
}

// An encoder makes frames.
type encoder struct {
	zstd       *zstd.Encoder
	raw, frame []byte
}

func newEncoder() (*encoder, error) {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	return &encoder{zstd: z}, nil
}

// encode returns the frame of a block of at least one record. It is good until
// the next call.
func (e *encoder) encode(first uint64, now time.Time, block [][]byte) ([]byte, error) {
	if cap(e.raw) > keepBuffer {
		e.raw, e.frame = nil, nil
	}
	raw := e.raw[:0]
	for _, r := range block {
		raw = binary.AppendUvarint(raw, uint64(len(r)))
		raw = append(raw, r...)
		if len(raw) > maxRaw {
			return nil, fmt.Errorf("a block of more than %d bytes", maxRaw)
		}
	}
	frame := append(e.frame[:0], make([]byte, headerSize)...)
	frame = e.zstd.EncodeAll(raw, frame)
	payload := frame[headerSize:]
	appendHeader(frame[:0], &header{
		payload: len(payload),
		raw:     len(raw),
		first:   first,
		time:    now,
		count:   len(block),
		sum:     checksum(payload),
	})
	e.raw, e.frame = raw, frame
	return frame, nil
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecodeAllCapLimit(true))
}

var errDamaged = errors.New("damaged block")

// decode returns the records of a frame: of one backing array of their own.
func decode(z *zstd.Decoder, h *header, payload []byte) ([][]byte, error) {
	if len(payload) != h.payload || checksum(payload) != h.sum {
		return nil, errDamaged
	}
	raw, err := z.DecodeAll(payload, make([]byte, 0, h.raw))
	if err != nil || len(raw) != h.raw {
		return nil, errDamaged
	}
	records := make([][]byte, h.count)
	for i := range records {
		n, k := binary.Uvarint(raw)
		if k <= 0 || n > uint64(len(raw)-k) {
			return nil, errDamaged
		}
		end := k + int(n)
		records[i], raw = raw[k:end:end], raw[end:]
	}
	if len(raw) > 0 {
		return nil, errDamaged
	}
	return records, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
