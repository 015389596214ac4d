package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
)

// A wire is one end of a keep-alive connection of HTTP/1.1, as little of it as
// the generator and the upstream stub need: net/http on both ends would cost
// more than what is measured between them.
type wire struct {
	net.Conn
	r     *bufio.Reader
	first []byte // request line or status line, until the next read
	body  []byte // of the newest message, until the next read
	close bool   // the other end will close
}

func newWire(c net.Conn) *wire { return &wire{Conn: c, r: bufio.NewReaderSize(c, 16<<10)} }

var errWire = errors.New("not HTTP/1.1 as it is expected here")

// read takes one message.
func (w *wire) read() error {
	line, err := w.line()
	if err != nil {
		return err
	}
	w.first, w.body, w.close = append(w.first[:0], line...), w.body[:0], false
	length, chunked := 0, false
	for {
		if line, err = w.line(); err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return errWire
		}
		switch value = bytes.TrimSpace(value); len(name) {
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				if length, err = strconv.Atoi(string(value)); err != nil {
					return errWire
				}
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				chunked = true
			}
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")) {
				w.close = true
			}
		}
	}
	if !chunked {
		return w.take(length)
	}
	for {
		if line, err = w.line(); err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return errWire
		}
		if err := w.take(int(n)); err != nil {
			return err
		}
		if _, err := w.line(); err != nil || n == 0 {
			return err
		}
	}
}

func (w *wire) line() ([]byte, error) {
	line, err := w.r.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

func (w *wire) take(n int) error {
	at := len(w.body)
	w.body = append(w.body, make([]byte, n)...)
	_, err := io.ReadFull(w.r, w.body[at:])
	return err
}

// status is that of the answer just read.
func (w *wire) status() int {
	if len(w.first) < 12 {
		return 0
	}
	n, _ := strconv.Atoi(string(w.first[9:12]))
	return n
}
