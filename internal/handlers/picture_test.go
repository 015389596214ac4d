package handlers

import (
	"bytes"
	"context"
	"image"
	"image/jpeg"
	"image/png"
	"slices"
	"testing"

	"github.com/mendian/mendian/internal/problem"
)

// drawn is a picture with enough in it to have all parts of its format.
func drawn(t testing.TB) (asJPEG, asPNG []byte) {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 64, 48))
	for i := range img.Pix {
		img.Pix[i] = byte(i * i)
	}
	var j, p bytes.Buffer
	if err := jpeg.Encode(&j, img, nil); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&p, img); err != nil {
		t.Fatal(err)
	}
	return j.Bytes(), p.Bytes()
}

// A picture is whole, or it ends too early, wherever that is; what stands behind
// its end is none of its business.
func TestWholePictures(t *testing.T) {
	t.Parallel()
	asJPEG, asPNG := drawn(t)
	for format, file := range map[string][]byte{"jpeg": asJPEG, "png": asPNG} {
		if !wholePicture(format, file) || !wholePicture(format, append(slices.Clone(file), "<script>"...)) {
			t.Errorf("a whole %s is not taken", format)
		}
		for n := range file {
			if wholePicture(format, file[:n]) {
				t.Errorf("%d of the %d bytes of a %s are taken for a whole one", n, len(file), format)
			}
		}
	}
	scan := []byte{0xff, 0xda, 0, 2, 1, 0xff, 0, 2, 0xff, 0xd0, 3}
	for name, tc := range map[string]struct {
		parts [][]byte
		want  bool
	}{
		"restarts, and 0xff in what is coded": {[][]byte{scan, {0xff, 0xd9}}, true},
		"several scans":                       {[][]byte{scan, {0xff, 0xc4, 0, 3, 9}, scan, {0xff, 0xd9}}, true},
		"fill bytes":                          {[][]byte{{0xff, 0xff}, scan, {0xff, 0xff, 0xd9}}, true},
		"a thumbnail's end":                   {[][]byte{{0xff, 0xe1, 0, 4, 0xff, 0xd9}, scan}, false},
		"no marker where one should be":       {[][]byte{{0xff, 0xe1, 0, 3, 7, 7}, scan, {0xff, 0xd9}}, false},
		"a length beyond the end":             {[][]byte{{0xff, 0xe1, 0xff, 0xff}, scan, {0xff, 0xd9}}, false},
	} {
		if got := wholeJPEG(bytes.Join(append([][]byte{{0xff, 0xd8}}, tc.parts...), nil)); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Whatever is uploaded, looking at it ends, with one of our codes.
func FuzzPicture(f *testing.F) {
	asJPEG, asPNG := drawn(f)
	f.Add(asJPEG)
	f.Add(asPNG)
	f.Add([]byte{0xff, 0xd8, 0xff, 0xda})
	f.Add(asPNG[:40])
	f.Fuzz(func(t *testing.T, file []byte) {
		wholeJPEG(file)
		wholePNG(file)
		err := pictureRules(context.Background(), file, maxSide, "jpeg", "png")
		if _, ok := problem.As(err); err != nil && !ok {
			t.Errorf("%v", err)
		}
	})
}
