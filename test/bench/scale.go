package main

import (
	"context"
	"errors"
)

func scale(context.Context, string) error { return errors.New("later") }
