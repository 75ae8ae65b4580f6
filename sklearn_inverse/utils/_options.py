"""Options of an estimator that are kept in estimators of their own, by topic."""

from sklearn.base import clone

__all__ = ["NestedOptions"]


class NestedOptions:
    """Let ``topic__name`` be set where ``topic=None`` stands for all defaults.

    A mixin, to the left of BaseEstimator.

    Attributes
    ----------
    _option_types : dict
        Maps such a parameter to the class of its options.
    """

    _option_types: dict = {}

    def get_params(self, deep=True):
        """Get parameters, those of options that are not given among them.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return parameters of options and nested estimators too.

        Returns
        -------
        params : dict
            Values by name.
        """
        params = super().get_params(deep=deep)
        for topic, kind in self._option_types.items():
            if deep and params[topic] is None:
                defaults = kind().get_params()
                params |= {f"{topic}__{name}": defaults[name] for name in defaults}
        return params

    def set_params(self, **params):
        """Set parameters, ``topic__name`` for options.

        Parameters
        ----------
        **params : dict
            Values by name.

        Returns
        -------
        self : object
            The estimator.
        """
        for key in params:
            topic, _, name = key.partition("__")
            kind = self._option_types.get(topic)
            is_new = kind is not None and topic not in params
            if is_new and getattr(self, topic) is None and name in kind().get_params():
                setattr(self, topic, kind())
        return super().set_params(**params)

    def _options(self, topic, **changes):
        """Return checked options, a copy with some of them changed."""
        given = getattr(self, topic)
        options = self._option_types[topic]() if given is None else clone(given)
        options.set_params(**changes)._validate_params()
        return options
