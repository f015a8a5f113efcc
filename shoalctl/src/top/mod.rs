//! `top`: what the region does at this moment, on the whole terminal.

mod view;

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::fault::{Exit, Fault};
use crate::fleet::{Look, look, read};
use crate::gateway::Gateway;
use crate::run::Outcome;
use view::View;

/// How often the gateway is asked.
const EVERY: Duration = Duration::from_secs(2);
/// How soon it is noticed that nobody waits for keys any more.
const NOTICE: Duration = Duration::from_millis(200);

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// To be done.
    Quit,
    /// To see so many lines further down, or up.
    Scroll(isize),
    /// To see it as large as the terminal has become.
    Redraw,
}

/// Shows it until somebody has seen enough.
///
/// # Errors
/// Where there is no terminal, or no gateway answers in the beginning.
pub async fn top(gateway: &Gateway) -> Result<Outcome, Fault> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Fault::usage(
            "top needs a terminal",
            "`shoalctl status` says the same once, and takes -o json",
        ));
    }
    // Before the terminal is taken over, so that what is wrong is told as by any other command.
    let first = read(&look(gateway).await?)?;
    let view = View::new(gateway.address().as_str(), first, Instant::now().into_std());
    let no_terminal = |it: io::Error| {
        Fault::new(Exit::Failure, format!("the terminal cannot be used: {it}"), "use `shoalctl status`")
    };
    let mut terminal = ratatui::try_init().map_err(no_terminal)?;
    let shown = show(&mut terminal, gateway, view).await;
    ratatui::restore();
    shown.map_err(no_terminal)?;
    Ok(Outcome { text: String::new(), exit: Exit::Done })
}

async fn show(terminal: &mut DefaultTerminal, gateway: &Gateway, mut view: View) -> io::Result<()> {
    let mut wishes = wishes();
    loop {
        let next = Instant::now() + EVERY;
        let mut looking = pin!(async {
            sleep_until(next).await;
            read(&look(gateway).await?)
        });
        let seen: Result<Look, Fault> = loop {
            terminal.draw(|frame| view.draw(frame))?;
            tokio::select! {
                seen = &mut looking => break seen,
                wish = wishes.recv() => match wish {
                    None | Some(Wish::Quit) => return Ok(()),
                    Some(Wish::Scroll(lines)) => view.scroll(lines),
                    Some(Wish::Redraw) => {}
                },
            }
        };
        let now = Instant::now().into_std();
        match seen {
            Ok(seen) => view.saw(seen, now),
            Err(fault) => view.saw_nothing(&fault.what, now),
        }
    }
}

/// What is typed, for as long as somebody listens.
fn wishes() -> mpsc::Receiver<Wish> {
    let (wishes, wished) = mpsc::channel(16);
    thread::spawn(move || {
        while !wishes.is_closed() {
            let event = match event::poll(NOTICE) {
                Ok(true) => event::read(),
                Ok(false) => continue,
                Err(_) => return,
            };
            let wish = match event {
                Ok(Event::Key(key)) => meaning(key),
                Ok(Event::Resize(..)) => Some(Wish::Redraw),
                Ok(_) => None,
                // The terminal is gone.
                Err(_) => return,
            };
            if let Some(wish) = wish
                && wishes.blocking_send(wish).is_err()
            {
                return;
            }
        }
    });
    wished
}

fn meaning(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Down | KeyCode::Char('j') => Some(Wish::Scroll(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Wish::Scroll(-1)),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(Wish::Scroll(10)),
        KeyCode::PageUp => Some(Wish::Scroll(-10)),
        KeyCode::Home => Some(Wish::Scroll(isize::MIN)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_they_do_elsewhere() {
        let typed = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        let none = KeyModifiers::NONE;
        for (code, modifiers, expected) in [
            (KeyCode::Char('q'), none, Some(Wish::Quit)),
            (KeyCode::Esc, none, Some(Wish::Quit)),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Wish::Quit)),
            (KeyCode::Char('c'), none, None),
            (KeyCode::Down, none, Some(Wish::Scroll(1))),
            (KeyCode::Char('k'), none, Some(Wish::Scroll(-1))),
            (KeyCode::PageDown, none, Some(Wish::Scroll(10))),
        ] {
            assert_eq!(typed(code, modifiers), expected, "{code:?}");
        }
    }
}
