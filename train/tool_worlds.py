"""What a conversation in a world of tools looks like."""

from dataclasses import replace

from jaxrl.envs.tools.world import ToolWorld
from jaxrl.host_world import HostWorld
from jaxrl.language import LanguageEnvironment
from jaxrl.lm import folders
from jaxrl.text import Chat
from jaxrl.text.tool_forms import Schemas
from jaxrl.text.tools import schemas


def tools_of(env: LanguageEnvironment) -> Schemas:
    """What a conversation tells of the tools of the environment, where it uses words."""
    return schemas(env.toolbox) if env.in_words else ()


def in_world(
    env: LanguageEnvironment, spoken: folders.ChatTokenizer
) -> tuple[LanguageEnvironment, Chat]:
    """An environment and a conversation as they fit each other.

    In a world of tools what follows a response is what its calls gave, not what a user says.
    """
    words, chat = spoken.chat.words, spoken.chat
    if isinstance(env, ToolWorld) and env.in_words and words.tools:
        env = env.replace(tool_form=words.tools)
    elif not (isinstance(env, HostWorld) and env.tool_form and words.tools):
        return env, chat
    if words.results != words.following:
        other = spoken.in_words(replace(words, following=words.results)).chat
        chat = chat.replace(next_piece=other.next_piece)
    return env, chat
