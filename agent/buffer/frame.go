package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A frame is one block on disk. Layout, little-endian, with offset and size in bytes:
//
//	 0   4  magic
//	 4   4  version
//	 8   4  payload size
//	12   4  payload size before compression
//	16   8  sequence number of the first record
//	24   8  time of the append, Unix nanoseconds
//	32   4  number of records
//	36   4  CRC-32C of the payload
//	40   4  CRC-32C of bytes 0 to 39
//	44      payload: records, each after its length (uvarint), compressed with zstd
//
// A valid header is trusted without its payload. So segments are surveyed by their
// headers only, and the records of a damaged payload are still counted.
const (
	magic         = "\xf5swq" // 0xf5 never occurs in UTF-8, so text records cannot contain it
	formatVersion = 1
	headerSize    = 44

	// maxRaw bounds a block before compression, and the memory to read one.
	maxRaw = 256 << 20
	// keepBuffer bounds the buffers kept for reuse: larger blocks are exceptions.
	keepBuffer = 2 << 20
	// maxSequence leaves room for additions without overflow.
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

// size returns the size of the whole frame.
func (h *header) size() int64 { return headerSize + int64(h.payload) }

// end returns the sequence number after the last record.
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

// parseHeader parses the header at the start of b. It reports false if there is no valid
// one.
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

// An encoder encodes frames.
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

// encode returns the frame of a block of at least one record. It is valid until the next
// call.
func (e *encoder) encode(first uint64, now time.Time, block [][]byte) ([]byte, error) {
	if cap(e.raw) > keepBuffer {
		e.raw, e.frame = nil, nil
	}
	raw := e.raw[:0]
	for _, r := range block {
		raw = binary.AppendUvarint(raw, uint64(len(r)))
		raw = append(raw, r...)
		if len(raw) > maxRaw {
			return nil, fmt.Errorf("block is larger than %d bytes", maxRaw)
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

// decode returns the records of a frame. They share a new backing array.
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
