package handlers

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/inbox"
)

// maxPush is the largest body of a push (design security.md §5).
const maxPush = 256 << 10

// Public adds the routes outside the contract.
func (s *Server) Public(e *echo.Echo) {
	e.POST("/wechat/:ref/component", s.receivePush)
	e.POST("/wechat/:ref/messages/:appid", s.receivePush)
	s.connectRoutes(e)
	s.jwksRoute(e)
}

// receivePush is POST /wechat/{ref}/…: one of WeChat's pushes. The answer is
// "success" once it is kept (in a release check, what that wants to hear), 403
// with nothing in it for whatever isn't a push of WeChat's, and 500 where it
// couldn't be kept, so that WeChat pushes again (platform.md §7.3).
func (s *Server) receivePush(c echo.Context) error {
	body, err := io.ReadAll(io.LimitReader(c.Request().Body, maxPush+1))
	if err != nil || len(body) > maxPush {
		return c.NoContent(http.StatusForbidden)
	}
	ctx := c.Request().Context()
	answer, err := s.receive(ctx, inbox.Push{Ref: c.Param("ref"), AppID: c.Param("appid"), Query: c.QueryParams(), Body: body})
	switch {
	case err == nil:
		return c.Blob(http.StatusOK, answer.Type, answer.Body)
	case errors.Is(err, inbox.ErrRefused):
		return c.NoContent(http.StatusForbidden)
	}
	stateOf(ctx).err = err
	return c.NoContent(http.StatusInternalServerError)
}

// receive keeps a push in its turn.
func (s *Server) receive(ctx context.Context, p inbox.Push) (inbox.Answer, error) {
	if err := s.pushes.enter(ctx); err != nil {
		return inbox.Answer{}, err
	}
	defer s.pushes.leave()
	return s.Inbox.Receive(ctx, p)
}
