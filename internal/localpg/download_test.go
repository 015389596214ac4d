package localpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// The real repository can't be reached by a test. This one serves an archive of
// the same form, whose programs call the installed ones; everything from the
// request to the running server is real.
//
// Not parallel: the library leaves its log in the temporary directory.
func TestDownload(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	jar := archive(t)
	var asked atomic.Int32
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, ".jar"):
			asked.Add(1)
			_, _ = w.Write(jar)
		case strings.HasSuffix(r.URL.Path, ".jar.sha256"):
			sum := sha256.Sum256(jar)
			_, _ = w.Write([]byte(hex.EncodeToString(sum[:])))
		default:
			http.NotFound(w, r)
		}
	}))
	defer repository.Close()
	from := source{repository.URL, []string{filepath.Join(openDir(t), "postgres")}}

	data := keptDir(t)
	var said strings.Builder
	logf := func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) }
	for range 2 {
		s, err := startDownloadFrom(t.Context(), Options{DataDir: data, Logf: logf, MaxConnections: 10}, from)
		if err != nil {
			t.Fatal(err)
		}
		if got := exec1(t, s.DSN(), "SELECT 'there'"); got != "there" {
			t.Errorf("got %q", got)
		}
		if !strings.Contains(s.Describe(), from.keep[0]) {
			t.Errorf("%q: not the downloaded binaries", s.Describe())
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("downloaded %d times, want once", got)
	}
	if !strings.Contains(said.String(), "downloading PostgreSQL") {
		t.Errorf("it was not said: %s", said.String())
	}
}

func TestDownloadThatFails(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	repository := httptest.NewServer(http.NotFoundHandler())
	defer repository.Close()
	from := source{repository.URL, []string{filepath.Join(openDir(t), "postgres")}}
	_, err := startDownloadFrom(t.Context(), Options{Logf: t.Logf}, from)
	var none *unavailable
	if !errors.As(err, &none) || !strings.Contains(err.Error(), repository.URL) {
		t.Errorf("got %v", err)
	}
}

// archive is a jar with one tar.xz in it.
func archive(t *testing.T) []byte {
	t.Helper()
	who, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	b, err := findBinaries(who, 0)
	if err != nil {
		t.Fatal(err)
	}
	var tarred bytes.Buffer
	tw := tar.NewWriter(&tarred)
	for _, program := range []string{"initdb", "postgres"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", b.path(program))
		if err := tw.WriteHeader(&tar.Header{Name: "bin/" + program, Mode: 0o700, Size: int64(len(script)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(script)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	zw := zip.NewWriter(&zipped)
	w, err := zw.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(xzStored(tarred.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return zipped.Bytes()
}

// xzStored wraps data of at most 64 KiB in the xz format without compressing
// it: one block of one stored LZMA2 chunk (xz file format 1.0.4, §2-4).
func xzStored(data []byte) []byte {
	le := binary.LittleEndian
	sum := func(b []byte) []byte { return le.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
	pad := func(b []byte) []byte { return append(b, make([]byte, (4-len(b)%4)%4)...) }
	flags := []byte{0, 1} // check: CRC32

	out := append([]byte("\xfd7zXZ\x00"), flags...)
	out = append(out, sum(flags)...)

	header := pad([]byte{2, 0, 0x21, 1, 0x16}) // 12 bytes with its sum, one filter: LZMA2, 8 MiB dictionary
	block := append(header, sum(header)...)
	block = append(block, 1) // a stored chunk that resets the dictionary
	block = binary.BigEndian.AppendUint16(block, uint16(len(data)-1))
	block = append(append(block, data...), 0)
	unpadded := len(block) + 4
	out = append(append(out, pad(block)...), sum(data)...)

	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(unpadded))
	index = pad(binary.AppendUvarint(index, uint64(len(data))))
	index = append(index, sum(index)...)
	out = append(out, index...)

	footer := append(le.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	out = append(append(out, sum(footer)...), footer...)
	return append(out, "YZ"...)
}
