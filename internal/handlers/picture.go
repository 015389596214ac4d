package handlers

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	_ "image/jpeg" // what DecodeConfig reads
	_ "image/png"  // what DecodeConfig reads
	"slices"
	"strconv"

	"github.com/mendian/mendian/internal/problem"
)

const (
	// maxSide keeps away pictures whose header promises far more than a megabyte
	// of file can hold.
	maxSide = 16384
	// maxCoverSide is of the cover of goods (design api.md §0 no. 13).
	maxCoverSide = 300
)

// pictureRules checks a file that should be a whole picture in one of these
// formats, by its content alone: names and declared types say nothing.
func pictureRules(ctx context.Context, file []byte, most int, formats ...string) error {
	s := stateOf(ctx)
	if len(file) == 0 {
		return problem.Of(problem.CodeImageSizeInvalid).WithFields(field(s, "/file", ruleEmptyFile, ""))
	}
	size, format, err := image.DecodeConfig(bytes.NewReader(file))
	switch {
	case err != nil || !slices.Contains(formats, format) || !wholePicture(format, file):
		return problem.Of(problem.CodeImageFormatInvalid).WithFields(field(s, "/file", rulePicture, ""))
	case size.Width > most || size.Height > most:
		return problem.Of(problem.CodeValidationFailed).WithFields(field(s, "/file", rulePixels, strconv.Itoa(most)))
	}
	return nil
}

// wholePicture reports whether a picture whose header could be read is there to
// its end. It walks from part to part and decodes none: a small file may unpack
// to a very large picture.
func wholePicture(format string, b []byte) bool {
	if format == "png" {
		return wholePNG(b)
	}
	return wholeJPEG(b)
}

// wholeJPEG looks for the marker EOI (ITU-T T.81 §B.1.1).
func wholeJPEG(b []byte) bool {
	const soi, eoi, sos, rst0, tem = 0xd8, 0xd9, 0xda, 0xd0, 0x01
	for at := 2; at+1 < len(b); {
		marker := b[at+1]
		switch {
		case b[at] != 0xff:
			return false
		case marker == 0xff: // a fill byte
			at++
			continue
		case marker == eoi:
			return true
		case marker >= rst0 && marker <= soi || marker == tem: // they have no length
			at += 2
			continue
		case at+3 >= len(b):
			return false
		}
		at += 2 + int(binary.BigEndian.Uint16(b[at+2:]))
		if marker != sos {
			continue
		}
		// What was coded runs to the next marker but RST; its own 0xff is
		// followed by 0.
		for at+1 < len(b) && (b[at] != 0xff || b[at+1] == 0 || b[at+1] >= rst0 && b[at+1] < soi) {
			at++
		}
	}
	return false
}

// wholePNG looks for the chunk IEND (ISO/IEC 15948 §5.3).
func wholePNG(b []byte) bool {
	const signature, around = 8, 12 // around a chunk's data: length, type, CRC
	for at := signature; at+around <= len(b); {
		end := uint64(at) + around + uint64(binary.BigEndian.Uint32(b[at:]))
		if end > uint64(len(b)) {
			return false
		}
		if string(b[at+4:at+8]) == "IEND" {
			return true
		}
		at = int(end)
	}
	return false
}
